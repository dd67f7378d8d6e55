// The service `async_job`: start jobs and wait for them, open their results, cancel them, run them again.
import { reactive } from "@odoo/owl";
import { downloadFile } from "@web/core/network/download";
import { registry } from "@web/core/registry";
import {
    completeAction,
    getDownloadUrl,
    hasAction,
    hasCloseAction,
    hasValue,
    isLive,
    withoutClose,
} from "../core/async_job";
import { AsyncJobCancelledError, makeJobError } from "../core/async_job_error";
import { AsyncJobResultDialog } from "../core/async_job_result/async_job_result";
import { AsyncJobCalls } from "./async_job_calls";
import { AsyncJobNews } from "./async_job_news";
import { AsyncJobStore } from "./async_job_store";
import { AsyncJobSync } from "./async_job_sync";
import { AsyncJobToasts } from "./async_job_toasts";
import { startWait } from "./async_job_waits";
import { AsyncJobWatchers } from "./async_job_watchers";

/** @typedef {import("../core/async_job").AsyncJob} AsyncJob */

export class AsyncJobService {
    constructor(env, services) {
        this.setup(env, services);
    }

    /**
     * @param {import("@web/env").OdooEnv} env
     * @param {Partial<import("services").Services>} services
     */
    setup(env, services) {
        this.env = env;
        this.action = services.action;
        this.bus = services.bus_service;
        this.dialog = services.dialog;
        this.orm = services.orm;
        this.ui = services.ui;
        /** @type {Record<number, import("./async_job_waits").Wait>} */
        this.waits = reactive({});
        this.calls = new AsyncJobCalls(this.orm);
        this.toasts = new AsyncJobToasts(this, services);
        this.store = new AsyncJobStore(this.orm);
        this.jobs = this.store.jobs;
        this.hidden = this.store.hidden;
        this.older = this.store.older;
        this.watchers = new AsyncJobWatchers(this.store);
        const { store, toasts, watchers } = this;
        const news = new AsyncJobNews(env.bus, { store, toasts, watchers });
        this.sync = new AsyncJobSync(env, services, { news, store, watchers });
    }

    // -------------------------------------------------------------------------
    // Start jobs and wait for them
    // -------------------------------------------------------------------------

    /**
     * Call a method of the server that starts a job and answers `{ asyncJobId: job.id }`. Open the result if the user
     * is still waiting for it. If not, a toast and *Background jobs* offer it.
     *
     * A job whose result was opened is completed. So is a job with plain data, as the caller has it.
     *
     * @param {{ model: string, method: string, args?: any[], kwargs?: Object }} call
     * @param {Object} [options] as for `asyncRpc`
     * @returns {ReturnType<AsyncJobService["asyncRpc"]>}
     */
    async run(call, options = {}) {
        const job = await this.asyncRpc(call, { ...options, isOffered: true });
        if (!job.inBackground && job.state === "succeeded") {
            if (hasAction(job) || hasCloseAction(job)) {
                await this.doAction(job.payload.result);
            }
            await this.complete(job.id);
        }
        return job;
    }

    /**
     * Call a method of the server that starts a job and answers `{ asyncJobId: job.id }`. Wait for the end of the job,
     * for any time.
     *
     * The page is blocked meanwhile, for 5 seconds at most. Users can free it earlier. From then on the job runs in the
     * background, and the page must not change by itself.
     *
     * @param {{ model: string, method: string, args?: any[], kwargs?: Object }} call
     * @param {Object} [options]
     * @param {boolean} [options.blockUI=true]
     * @param {() => void} [options.onBackground] called if the page is freed before the job has ended
     * @param {boolean} [options.isHidden=false] do not list the job until then, or until an error; the caller must
     *  dismiss the job
     * @param {boolean} [options.isOffered=blockUI] if the job ends in the background, a toast offers its result
     * @returns {Promise<Pick<AsyncJob, "id"|"name"|"state"|"payload"> & { inBackground: boolean }>} the job, if it
     *  ended well. `inBackground`: the user does not wait for it (any more).
     *  The promise is rejected with the RPCError of a failed job, or with an AsyncJobCancelledError.
     */
    async asyncRpc(call, options = {}) {
        const { blockUI = true, isHidden = false, isOffered = blockUI, onBackground } = options;
        let jobId;
        let inBackground = !blockUI;
        const onLetGo = (byUser) => {
            inBackground = true;
            this.hidden.delete(jobId);
            this.toasts.showBackground(this.jobs[jobId]?.name, byUser);
            onBackground?.();
        };
        const wait = blockUI ? startWait(this.waits, this.ui, onLetGo) : null;
        const letGoOfRetried = ({ detail: job }) => {
            if (job.id === jobId && job.state === "created" && job.payload?.error) {
                wait?.letGo(); // it is tried again later
            }
        };
        this.env.bus.addEventListener("async_job", letGoOfRetried);
        try {
            this.bus.start();
            const overBefore = this.store.getOverIds();
            jobId = await this.calls.start(call);
            if (wait) {
                wait.jobId = jobId;
            }
            if (isHidden && !inBackground) {
                this.hidden.add(jobId);
            }
            const job = await this.watch(jobId, overBefore.has(jobId));
            if (inBackground && isOffered) {
                this.toasts.offer(job);
            }
            if (job.state === "failed") {
                throw makeJobError(job, inBackground);
            }
            if (job.state === "cancelled") {
                throw new AsyncJobCancelledError(job);
            }
            return { ...job, inBackground };
        } catch (error) {
            this.hidden.delete(jobId);
            throw error;
        } finally {
            this.env.bus.removeEventListener("async_job", letGoOfRetried);
            wait?.end();
        }
    }

    /**
     * Wait for the end of a job.
     *
     * @param {number} jobId
     * @param {boolean} [mayBeStale=false] the known end may be old: the job may have been run again since
     * @returns {Promise<Pick<AsyncJob, "id"|"name"|"state"|"payload">>} the job, in any final state
     */
    watch(jobId, mayBeStale = false) {
        const job = this.jobs[jobId];
        const isStale = mayBeStale && job && !isLive(job);
        this.toasts.remove(jobId); // the job ended before the caller waited
        const promise = this.watchers.watch(jobId, isStale);
        if (isStale) {
            this.sync.tryRefresh([jobId]);
        }
        this.sync.schedulePoll();
        return promise;
    }

    // -------------------------------------------------------------------------
    // Use, cancel, retry and dismiss jobs
    // -------------------------------------------------------------------------

    getJobs() {
        return this.jobs;
    }

    /**
     * Open the result of a job, download it, or show its error. A job whose result was used is completed.
     *
     * @param {number} jobId
     */
    async open(jobId) {
        const { name = false, payload: known, state } = this.jobs[jobId] || {};
        const payload = known ?? (await this.store.readPayload(jobId));
        if (payload?.error || state === "failed") {
            // Nothing catches the error, so Odoo shows its dialog.
            Promise.reject(makeJobError({ id: jobId, name, payload }));
            return;
        }
        await this.openPayload(payload, name);
        if (this.jobs[jobId]?.state !== "done") {
            await this.complete(jobId);
        }
    }

    /**
     * @param {AsyncJob["payload"]} payload
     * @param {string|false} [name] of the job
     */
    async openPayload(payload, name) {
        if (payload && hasAction({ payload })) {
            await this.doAction(withoutClose(payload.result));
        } else if (payload && hasValue({ payload })) {
            this.dialog.add(AsyncJobResultDialog, { name, result: payload.result });
        }
    }

    async doAction(action) {
        const url = getDownloadUrl(action);
        await (url === null ? this.action.doAction(completeAction(action)) : downloadFile(url));
    }

    /**
     * Open the list of all jobs of the user, dismissed ones included.
     *
     * @param {number[]} [jobIds] only these
     */
    async openAll(jobIds) {
        const xmlId = "ir_async.ir_async_action_mine";
        const options = { clearBreadcrumbs: true };
        if (!jobIds) {
            return this.action.doAction(xmlId, options);
        }
        const action = await this.action.loadAction(xmlId);
        return this.action.doAction({ ...action, domain: [["id", "in", jobIds]] }, options);
    }

    complete(jobIds) {
        return this.callJobs("complete", jobIds);
    }

    cancel(jobIds) {
        return this.callJobs("cancel", jobIds);
    }

    retry(jobIds) {
        return this.callJobs("retry", jobIds);
    }

    dismiss(jobIds) {
        return this.callJobs("dismiss", jobIds);
    }

    /** Dismiss all jobs that have ended, also those too old to be listed. */
    async dismissAll() {
        await this.dismiss(await this.store.findOver());
        if (this.older.count) {
            await this.sync.tryRefresh();
        }
    }

    /**
     * @param {string} method
     * @param {number|number[]} jobIds
     */
    async callJobs(method, jobIds) {
        const ids = [jobIds].flat();
        const result = await this.orm.call("ir.async", method, [ids]);
        if (!this.sync.isConnected) {
            await this.sync.tryRefresh(ids); // the bus sends no message
        }
        return result;
    }
}

export const asyncJobService = {
    dependencies: [
        "action",
        "bus_service",
        "dialog",
        "lazy_session",
        "multi_tab",
        "notification",
        "orm",
        "ui",
    ],
    start(env, services) {
        return new AsyncJobService(env, services);
    },
};

registry.category("services").add("async_job", asyncJobService);
