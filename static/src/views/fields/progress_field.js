// The field that shows the progress of a job.
import { Component, xml } from "@odoo/owl";
import { _t } from "@web/core/l10n/translation";
import { registry } from "@web/core/registry";
import { standardFieldProps } from "@web/views/fields/standard_field_props";
import { AsyncJobProgress } from "../../core/async_job_progress/async_job_progress";

export class ProgressField extends Component {
    static template = xml`<AsyncJobProgress t-if="isShown" progress="props.record.data[props.name]"/>`;
    static components = { AsyncJobProgress };
    static props = { ...standardFieldProps };

    get isShown() {
        const { name, record } = this.props;
        return record.data.state === "processing" && Boolean(record.data[name]);
    }
}

export const progressField = {
    component: ProgressField,
    displayName: _t("Progress of a job"),
    supportedTypes: ["json"],
    fieldDependencies: [{ name: "state", type: "selection" }],
};

registry.category("fields").add("ir_async_progress", progressField);
