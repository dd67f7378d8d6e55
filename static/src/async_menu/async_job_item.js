// One job in the menu of the top bar.
import { Component } from "@odoo/owl";
import { ConfirmationDialog } from "@web/core/confirmation_dialog/confirmation_dialog";
import { toLocaleDateTimeString } from "@web/core/l10n/dates";
import { _t } from "@web/core/l10n/translation";
import { useService } from "@web/core/utils/hooks";
import {
    STATE_LABELS,
    getShownState,
    hasAction,
    hasValue,
    isDownload,
    isLive,
    isResultWaiting,
} from "../core/async_job";
import { AsyncJobProgress } from "../core/async_job_progress/async_job_progress";
import { formatElapsed } from "../core/elapsed";

const { DateTime } = luxon;

const ICONS = {
    waiting: "fa-hourglass-o text-muted",
    created: "fa-clock-o text-muted",
    processing: "fa-circle-o-notch o_ir_async_spin text-primary",
    succeeded: "fa-check-circle text-success",
    done: "fa-check-circle text-success",
    failed: "fa-exclamation-circle text-danger",
    cancelled: "fa-ban text-muted",
};

/** Shows the state of a job, with buttons for its actions. */
export class AsyncJobItem extends Component {
    static template = "ir_async.AsyncJobItem";
    static components = { AsyncJobProgress };
    static props = {
        job: Object,
        now: Number, // for the elapsed time
        onOpen: { type: Function, optional: true },
    };
    static defaultProps = { onOpen: () => {} };

    setup() {
        this.asyncJob = useService("async_job");
        this.dialog = useService("dialog");
    }

    get icon() {
        return ICONS[this.props.job.state];
    }

    get stateLabel() {
        return STATE_LABELS[getShownState(this.props.job)].toString();
    }

    /** The reason why the job is not running, as far as it is known. */
    get reason() {
        const { isStuck, payload, scheduledAt, state } = this.props.job;
        if (state === "waiting") {
            return (isStuck ? _t("a previous job failed") : _t("for other jobs")).toString();
        }
        if (state === "created" && scheduledAt > this.props.now) {
            const date = DateTime.fromMillis(scheduledAt);
            const showDate = !date.hasSame(DateTime.fromMillis(this.props.now), "day");
            const time = toLocaleDateTimeString(date, { showDate, showTime: true });
            return payload?.error ? _t("runs again at %s", time) : _t("starts at %s", time);
        }
        return "";
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

    /** The result was opened, but is still available. */
    get canOpenAgain() {
        return this.props.job.state === "done" && hasAction(this.props.job);
    }

    get canShow() {
        return ["succeeded", "done"].includes(this.props.job.state) && hasValue(this.props.job);
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
        return this.props.job.payload?.error?.data?.message || "";
    }

    get elapsed() {
        const { startedAt, endedAt } = this.props.job;
        return startedAt ? formatElapsed(Math.max(0, (endedAt || this.props.now) - startedAt)) : "";
    }

    open() {
        this.props.onOpen();
        return this.asyncJob.open(this.props.job.id);
    }

    /** Ask before a running job is cancelled: its work would be lost. */
    cancel() {
        const { id, name } = this.props.job;
        if (!this.isRunning) {
            return this.asyncJob.cancel(id);
        }
        const { bus } = this.env;
        const closeWhenOver = ({ detail: job }) => job.id === id && !isLive(job) && close();
        const close = this.dialog.add(
            ConfirmationDialog,
            {
                title: _t("Cancel this job?"),
                body: _t(
                    "“%s” is running. The changes that it has not saved yet are undone.",
                    name
                ),
                confirmLabel: _t("Cancel Job"),
                confirm: () => {
                    const job = this.asyncJob.jobs[id];
                    return job && isLive(job) ? this.asyncJob.cancel(id) : undefined;
                },
                cancelLabel: _t("No, keep it"),
                cancel: () => {},
            },
            { onClose: () => bus.removeEventListener("async_job", closeWhenOver) }
        );
        bus.addEventListener("async_job", closeWhenOver);
    }

    retry() {
        return this.asyncJob.retry(this.props.job.id);
    }

    dismiss() {
        return this.asyncJob.dismiss(this.props.job.id);
    }
}
