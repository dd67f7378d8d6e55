import { Component } from "@odoo/owl";
import { useService } from "@web/core/utils/hooks";
import { STATE_LABELS, isDownload, isLive, isResultWaiting } from "../core/async_job";
import { formatElapsed } from "../core/elapsed";
import { AsyncJobProgress } from "../core/async_job_progress/async_job_progress";

const ICONS = {
    waiting: "fa-hourglass-o text-muted",
    created: "fa-clock-o text-muted",
    processing: "fa-circle-o-notch o_ir_async_spin text-primary",
    succeeded: "fa-check-circle text-success",
    done: "fa-check-circle text-success",
    failed: "fa-exclamation-circle text-danger",
    cancelled: "fa-ban text-muted",
};

/** A job in the list of the user: how it is, and what can be done about it. */
export class AsyncJobItem extends Component {
    static template = "ir_async.AsyncJobItem";
    static components = { AsyncJobProgress };
    static props = {
        job: Object,
        now: Number, // to tell the time that has passed
        onOpen: { type: Function, optional: true },
    };
    static defaultProps = { onOpen: () => {} };

    setup() {
        this.asyncJob = useService("async_job");
    }

    get icon() {
        return ICONS[this.props.job.state];
    }

    get stateLabel() {
        return STATE_LABELS[this.props.job.state].toString();
    }

    get isLive() {
        return isLive(this.props.job);
    }

    get isRunning() {
        return this.props.job.state === "processing";
    }

    get canOpen() {
        return isResultWaiting(this.props.job);
    }

    get isDownload() {
        return isDownload(this.props.job.payload?.result);
    }

    get hasFailed() {
        return this.props.job.state === "failed";
    }

    get canRetry() {
        return ["failed", "cancelled"].includes(this.props.job.state);
    }

    get errorMessage() {
        return this.hasFailed ? this.props.job.payload?.error?.data?.message || "" : "";
    }

    get elapsed() {
        const { startedAt, endedAt } = this.props.job;
        return startedAt ? formatElapsed((endedAt || this.props.now) - startedAt) : "";
    }

    open() {
        this.props.onOpen();
        return this.asyncJob.open(this.props.job.id);
    }

    cancel() {
        return this.asyncJob.cancel(this.props.job.id);
    }

    retry() {
        return this.asyncJob.retry(this.props.job.id);
    }

    dismiss() {
        return this.asyncJob.dismiss(this.props.job.id);
    }
}
