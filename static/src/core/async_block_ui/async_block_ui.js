// The overlay that blocks the page.
import { Component, useState } from "@odoo/owl";
import { _t } from "@web/core/l10n/translation";
import { registry } from "@web/core/registry";
import { useActiveElement } from "@web/core/ui/ui_service";
import { useService } from "@web/core/utils/hooks";
import { STATE_LABELS } from "../async_job";
import { AsyncJobProgress } from "../async_job_progress/async_job_progress";

/** Shows the job that the user waits for, with a button to continue in the background. */
export class AsyncBlockUI extends Component {
    static template = "ir_async.AsyncBlockUI";
    static components = { AsyncJobProgress };
    static props = {};

    setup() {
        const asyncJob = useService("async_job");
        this.waits = useState(asyncJob.waits);
        this.jobs = useState(asyncJob.jobs);
        useActiveElement("root");
    }

    get rows() {
        return Object.values(this.waits)
            .filter((wait) => wait.isShown)
            .map((wait) => {
                const job = this.jobs[wait.jobId];
                return {
                    id: wait.id,
                    name: job?.name || _t("Loading..."),
                    progress: job?.progress,
                    isRunning: job?.state === "processing",
                    stateLabel: job ? STATE_LABELS[job.state].toString() : "",
                };
            });
    }

    letGo() {
        Object.values(this.waits).forEach((wait) => wait.letGo(true));
    }

    onKeydown(ev) {
        if (ev.key === "Escape") {
            ev.stopPropagation();
            this.letGo();
        }
    }
}

registry.category("main_components").add("ir_async.AsyncBlockUI", { Component: AsyncBlockUI });
