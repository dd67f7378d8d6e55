import { Component } from "@odoo/owl";
import { _t } from "@web/core/l10n/translation";

/** The progress that a job reports: a bar where the total is known, and what it says. */
export class AsyncJobProgress extends Component {
    static template = "ir_async.AsyncJobProgress";
    static props = {
        progress: { type: [Object, { value: null }, Boolean], optional: true },
    };

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
        return total > 0 ? _t("%(done)s of %(total)s", { done, total }) : String(done);
    }
}
