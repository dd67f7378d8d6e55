import { Component } from "@odoo/owl";
import { _t } from "@web/core/l10n/translation";
import { formatFloat } from "@web/core/utils/numbers";

/** The progress that a job reports: a bar where the total is known, and its message. */
export class AsyncJobProgress extends Component {
    static template = "ir_async.AsyncJobProgress";
    static props = {
        progress: { type: [Object, { value: null }, Boolean], optional: true },
        label: { type: String, optional: true }, // what makes the progress, for screen readers
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

/** As users write numbers: 1,234 or 0.5. */
function formatNumber(value) {
    return formatFloat(value, { digits: [16, Number.isInteger(value) ? 0 : 2] });
}
