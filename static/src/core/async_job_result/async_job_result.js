// The dialog that shows the result of a job.
import { Component } from "@odoo/owl";
import { CopyButton } from "@web/core/copy_button/copy_button";
import { Dialog } from "@web/core/dialog/dialog";
import { _t } from "@web/core/l10n/translation";

// A longer text would freeze the page. *Copy* copies all of it.
const MAX_LENGTH = 100_000;

/** Shows a result that is no action: text or data. */
export class AsyncJobResultDialog extends Component {
    static template = "ir_async.AsyncJobResultDialog";
    static components = { CopyButton, Dialog };
    static props = {
        close: Function,
        name: { type: [String, Boolean], optional: true },
        result: true,
    };

    setup() {
        const { name, result } = this.props;
        this.title = name || _t("Result");
        this.text = typeof result === "string" ? result : JSON.stringify(result, null, 4);
        this.shownText =
            this.text.length > MAX_LENGTH ? `${this.text.slice(0, MAX_LENGTH)}…` : this.text;
    }
}
