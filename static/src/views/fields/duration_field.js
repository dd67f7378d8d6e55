// The field that shows a duration.
import { Component, useEffect, useState, xml } from "@odoo/owl";
import { browser } from "@web/core/browser/browser";
import { _t } from "@web/core/l10n/translation";
import { registry } from "@web/core/registry";
import { useRecordObserver } from "@web/model/relational_model/utils";
import { standardFieldProps } from "@web/views/fields/standard_field_props";
import { formatElapsed } from "../../core/elapsed";

/** Shows seconds as a stopwatch does. It keeps counting while the job runs. */
export class DurationField extends Component {
    static template = xml`<span class="o_ir_async_elapsed" t-esc="formattedValue"/>`;
    static props = { ...standardFieldProps };

    setup() {
        this.clock = useState({ now: Date.now() });
        useRecordObserver((record) => {
            this.startedAt = Date.now() - record.data[this.props.name] * 1000;
            this.clock.now = Date.now();
        });
        useEffect(
            (isRunning) => {
                if (isRunning) {
                    const interval = browser.setInterval(() => {
                        this.clock.now = Date.now();
                    }, 1000);
                    return () => browser.clearInterval(interval);
                }
            },
            () => [this.isRunning]
        );
    }

    get isRunning() {
        const { name, record } = this.props;
        return name === "duration" && record.data.state === "processing";
    }

    get formattedValue() {
        if (this.isRunning) {
            return formatElapsed(Math.max(this.clock.now - this.startedAt, 1000));
        }
        return formatDuration(this.props.record.data[this.props.name]);
    }
}

export const durationField = {
    component: DurationField,
    displayName: _t("Duration of a job"),
    supportedTypes: ["float"],
    fieldDependencies: [{ name: "state", type: "selection" }],
};

/**
 * Format seconds outside of fields: in groups, totals, pivot tables and graphs.
 *
 * @param {number|false} value
 * @returns {string}
 */
export function formatDuration(value) {
    return value ? formatElapsed(value * 1000) : "";
}

registry.category("fields").add("ir_async_duration", durationField);
registry.category("formatters").add("ir_async_duration", formatDuration);
