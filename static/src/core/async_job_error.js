import { registry } from "@web/core/registry";

/** The job that somebody waits for was cancelled. */
export class AsyncJobCancelledError extends Error {
    name = "AsyncJobCancelledError";

    /** @param {import("./async_job").AsyncJob} job */
    constructor(job) {
        super(`Job ${job.id} (${job.name || "without a name"}) was cancelled`);
        this.job = job;
    }
}

/** Whoever cancelled the job knows: nothing to show if the caller does not mind. */
function cancelledErrorHandler(env, error, originalError) {
    if (originalError instanceof AsyncJobCancelledError) {
        error.unhandledRejectionEvent?.preventDefault();
        return true;
    }
    return false;
}

registry
    .category("error_handlers")
    .add("asyncJobCancelledErrorHandler", cancelledErrorHandler, { sequence: 50 });
