// The field that shows the payload of a job.
import { Component } from "@odoo/owl";
import { CopyButton } from "@web/core/copy_button/copy_button";
import { _t } from "@web/core/l10n/translation";
import { registry } from "@web/core/registry";
import { useService } from "@web/core/utils/hooks";
import { formatFloat, formatInteger } from "@web/views/fields/formatters";
import { standardFieldProps } from "@web/views/fields/standard_field_props";
import { hasAction, isDownload } from "../../core/async_job";

/** Format a number in the language of the user, with all decimals. */
function formatNumber(value) {
    if (Number.isInteger(value)) {
        return formatInteger(value);
    }
    const decimals = String(value).split(".")[1]?.length;
    return decimals && !/e/i.test(String(value))
        ? formatFloat(value, { digits: [false, decimals] })
        : String(value);
}

/** Shows the result of a job, with a button to open it if it is an action, or its error with the traceback. */
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

    /** Texts and numbers are shown as the user would write them, all other data as JSON. */
    get resultText() {
        const { result } = this.payload;
        if (typeof result === "string") {
            return result;
        }
        if (typeof result === "number") {
            return formatNumber(result);
        }
        return JSON.stringify(result, null, 4);
    }

    get emptyText() {
        const { state } = this.props.record.data;
        if (state === "processing") {
            return _t("The job is running. Its result will be shown here.");
        }
        return ["waiting", "created"].includes(state)
            ? _t("The job has not run yet. Its result will be shown here.")
            : _t("There is no result.");
    }

    /** Open the result. If the job is the user's own, it is completed then. */
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
