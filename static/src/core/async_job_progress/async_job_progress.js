// The progress of a job.
import { Component } from "@odoo/owl";
import { _t } from "@web/core/l10n/translation";
import { formatFloat } from "@web/core/utils/numbers";

/** Shows a bar, if the total is known, and the message. */
export class AsyncJobProgress extends Component {
    static template = "ir_async.AsyncJobProgress";
    static props = {
        progress: { type: [Object, { value: null }, Boolean], optional: true },
        label: { type: String, optional: true }, // for screen readers
    };

    get label() {
        return this.props.label ? _t("Progress of %s", this.props.label) : _t("Progress");
    }

    get percentage() {
        const { done, total } = this.props.progress || {};
        return total > 0 ? Math.floor(Math.min(Math.max(done / total, 0), 1) * 100) : null;
    }

    get message() {
        const { done, total, message } = this.props.progress || {};
        if (message) {
            return message;
        }
        if (typeof done !== "number") {
            return "";
        }
        return total > 0
            ? _t("%(done)s of %(total)s", { done: formatNumber(done), total: formatNumber(total) })
            : formatNumber(done);
    }
}

/** Format a number in the language of the user: 1,234 or 0.5. */
function formatNumber(value) {
    return formatFloat(value, { digits: [16, Number.isInteger(value) ? 0 : 2] });
}
