import { Component } from "@odoo/owl";
import { CopyButton } from "@web/core/copy_button/copy_button";
import { _t } from "@web/core/l10n/translation";
import { registry } from "@web/core/registry";
import { useService } from "@web/core/utils/hooks";
import { standardFieldProps } from "@web/views/fields/standard_field_props";
import { hasAction, isDownload } from "../../core/async_job";

/** What came of a job: its result, which can be opened if it is an action, or its error with the traceback. */
export class PayloadField extends Component {
    static template = "ir_async.PayloadField";
    static components = { CopyButton };
    static props = { ...standardFieldProps };

    setup() {
        this.asyncJob = useService("async_job");
    }

    get payload() {
        return this.props.record.data[this.props.name] || null;
    }

    get error() {
        return this.payload?.error;
    }

    get hasAction() {
        return this.payload && hasAction({ payload: this.payload });
    }

    get isDownload() {
        return isDownload(this.payload?.result);
    }

    get resultText() {
        return JSON.stringify(this.payload.result, null, 4);
    }

    /** The result of a job of the user's own is used then. */
    open() {
        const { resId } = this.props.record;
        return resId in this.asyncJob.jobs
            ? this.asyncJob.open(resId)
            : this.asyncJob.openPayload(this.payload);
    }
}

export const payloadField = {
    component: PayloadField,
    displayName: _t("Result of a job"),
    supportedTypes: ["json"],
    fieldDependencies: [{ name: "state", type: "selection" }],
};

registry.category("fields").add("ir_async_payload", payloadField);
