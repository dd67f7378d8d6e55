// Errors of awaited jobs, and their dialogs.
import { _t } from "@web/core/l10n/translation";
import {
    RPCErrorDialog,
    WarningDialog,
    standardErrorDialogProps,
} from "@web/core/errors/error_dialogs";
import { UncaughtPromiseError } from "@web/core/errors/error_service";
import { makeErrorFromResponse } from "@web/core/network/rpc";
import { registry } from "@web/core/registry";
import { useService } from "@web/core/utils/hooks";

/** @typedef {import("./async_job").AsyncJob} AsyncJob */

/** The awaited job was cancelled. */
export class AsyncJobCancelledError extends Error {
    name = "AsyncJobCancelledError";

    /** @param {AsyncJob} job */
    constructor(job) {
        super(`Job ${job.id} (${job.name || "without a name"}) was cancelled`);
        this.job = job;
    }
}

/**
 * @param {Pick<AsyncJob, "id"|"name"|"payload">} job a job that failed
 * @param {boolean} [inBackground=false] the user does not wait for it
 * @returns {import("@web/core/network/rpc").RPCError} as if the method had been called directly
 */
export function makeJobError(job, inBackground = false) {
    const gone = _t("The error of this job is no longer available.").toString();
    const error = makeErrorFromResponse(
        job.payload?.error || {
            code: 0,
            message: "Odoo Server Error",
            data: { name: "", message: gone, arguments: [gone], context: {}, debug: gone },
        }
    );
    error.asyncJob = { ...job, state: "failed", inBackground };
    return error;
}

/** @param {number} jobId */
export function makeMissingJobError(jobId) {
    return new Error(`Job ${jobId} does not exist (any more).`);
}

/** The part that the dialogs about a failed job share. */
const withJob = (Dialog) =>
    class extends Dialog {
        static props = { ...standardErrorDialogProps, ...Dialog.props, job: Object };

        setup() {
            super.setup();
            this.asyncJob = useService("async_job");
        }

        get canRetry() {
            return this.asyncJob.jobs[this.props.job.id]?.state === "failed";
        }

        async retry() {
            this.props.close();
            await this.asyncJob.retry(this.props.job.id);
        }
    };

export class AsyncJobErrorDialog extends withJob(RPCErrorDialog) {
    static template = "ir_async.AsyncJobErrorDialog";
}

export class AsyncJobWarningDialog extends withJob(WarningDialog) {
    static template = "ir_async.AsyncJobWarningDialog";
}

/** @returns {typeof import("@odoo/owl").Component|undefined} nothing if an addon has its own dialog */
function getErrorDialog({ Component, data, exceptionName }) {
    if (Component || registry.category("error_notifications").contains(exceptionName || "")) {
        return;
    }
    const dialogs = registry.category("error_dialogs");
    const names = [exceptionName, data?.context?.exception_class];
    const name = names.find((key) => key && dialogs.contains(key));
    if (!name) {
        return AsyncJobErrorDialog;
    }
    return dialogs.get(name) === WarningDialog ? AsyncJobWarningDialog : undefined;
}

/** Show the standard dialog with the name of the job, or a toast if a dialog would interrupt the user. */
function jobErrorHandler(env, error, originalError) {
    const job = originalError?.asyncJob;
    if (!job || !(error instanceof UncaughtPromiseError)) {
        return false;
    }
    if (job.inBackground) {
        error.unhandledRejectionEvent.preventDefault();
        env.services.async_job.toasts.offer(job);
        return true;
    }
    const Dialog = getErrorDialog(originalError);
    if (!Dialog) {
        return false;
    }
    error.unhandledRejectionEvent.preventDefault();
    const { code, data, exceptionName, message, name, subType, type } = originalError;
    const props = { code, data, exceptionName, message, name, subType, type };
    env.services.dialog.add(Dialog, {
        ...props,
        job,
        traceback: error.traceback,
        serverHost: error.event?.target?.location.host,
    });
    return true;
}

/** Show nothing if no caller handles the cancellation: the user knows of it. */
function cancelledErrorHandler(env, error, originalError) {
    if (originalError instanceof AsyncJobCancelledError) {
        error.unhandledRejectionEvent?.preventDefault();
        return true;
    }
    return false;
}

registry
    .category("error_handlers")
    .add("asyncJobCancelledErrorHandler", cancelledErrorHandler, { sequence: 50 })
    .add("asyncJobErrorHandler", jobErrorHandler, { sequence: 51 });
