import { browser } from "@web/core/browser/browser";
import { _t } from "@web/core/l10n/translation";
import { isDownload, isResultWaiting } from "../core/async_job";
import { ForegroundTab } from "../core/foreground_tab";

/** @typedef {import("../core/async_job").AsyncJob} AsyncJob */

// Jobs that end one right after the other are told together. While they are, there is no hurry.
const DELAYS = { quiet: 200, max: 1500 };
const SUMMARY_DELAYS = { quiet: 1000, max: 3000 };
const MAX_TOASTS = 3;
const AUTOCLOSE_DELAY = 8000;
const SUMMARY = "summary";

/** Tells the user about the jobs that ended, in one tab. */
export class AsyncJobToasts {
    /**
     * @param {import("./async_job_service").AsyncJobService} service
     * @param {Partial<import("services").Services>} services
     */
    constructor(service, { multi_tab, notification }) {
        this.service = service;
        this.notification = notification;
        this.foregroundTab = new ForegroundTab(multi_tab);
        /** @type {Map<number, AsyncJob>} */
        this.ended = new Map();
        this.toasts = new Map();
    }

    /** Tell that a job has ended, soon. */
    add(job) {
        const { quiet, max } = this.toasts.has(SUMMARY) ? SUMMARY_DELAYS : DELAYS;
        if (!this.ended.size) {
            this.deadline = Date.now() + max;
        }
        this.ended.set(job.id, { ...job });
        browser.clearTimeout(this.timeout);
        const delay = Math.min(quiet, Math.max(0, this.deadline - Date.now()));
        this.timeout = browser.setTimeout(() => this.show(), delay);
    }

    /**
     * There is nothing to tell any more: the job is run again, its result was opened in another tab…
     *
     * @param {number} jobId
     * @param {string} [state] unless this is what the toast says
     */
    remove(jobId, state) {
        if (this.ended.get(jobId)?.state !== state) {
            this.ended.delete(jobId);
        }
        const toast = this.toasts.get(jobId);
        if (toast && toast.state !== state) {
            toast.close();
        }
    }

    async show() {
        const jobs = [...this.ended.values()];
        this.ended.clear();
        if (!jobs.length || !(await this.foregroundTab.isHere())) {
            return;
        }
        const summary = this.toasts.get(SUMMARY);
        if (summary) {
            this.showSummary([...summary.jobs, ...jobs]);
        } else if (jobs.length > MAX_TOASTS) {
            this.showSummary(jobs);
        } else {
            jobs.forEach((job) => this.showJob(job));
        }
    }

    showJob(job) {
        const buttons = [];
        const addButton = (name) =>
            buttons.push({
                name,
                primary: true,
                onClick: () => {
                    this.remove(job.id);
                    return this.service.open(job.id);
                },
            });
        const options = { title: job.name, autocloseDelay: AUTOCLOSE_DELAY, buttons };
        let message;
        if (job.state === "failed") {
            Object.assign(options, { type: "danger", sticky: true });
            message = job.payload?.error?.data?.message || _t("It failed.");
            addButton(_t("Show Error"));
        } else if (job.state === "cancelled") {
            options.type = "warning";
            message = _t("It was cancelled.");
        } else if (isResultWaiting(job)) {
            options.type = "success";
            if (isDownload(job.payload?.result)) {
                message = _t("Your file is ready.");
                addButton(_t("Download"));
            } else {
                message = _t("The result is ready.");
                addButton(_t("Open"));
            }
        } else {
            options.type = "success";
            message = _t("It is done.");
        }
        this.open(job.id, message, options, { state: job.state });
    }

    /** @param {AsyncJob[]} jobs */
    showSummary(jobs) {
        const failed = jobs.filter(({ state }) => state === "failed").length;
        this.open(
            SUMMARY,
            failed
                ? _t("%(failed)s of %(count)s jobs failed.", { failed, count: jobs.length })
                : _t("%(count)s jobs have ended.", { count: jobs.length }),
            {
                type: failed ? "danger" : "success",
                title: _t("Background jobs"),
                sticky: Boolean(failed),
                autocloseDelay: AUTOCLOSE_DELAY,
                buttons: [
                    { name: _t("Show"), primary: true, onClick: () => this.service.openAll() },
                ],
            },
            { jobs }
        );
    }

    /** @param {string|false} [name] */
    showBackground(name) {
        this.notification.add(
            _t("This takes a while: go on working. You will find it in the top bar."),
            { title: name || _t("In the background"), type: "info" }
        );
    }

    open(key, message, options, toast) {
        this.toasts.get(key)?.close();
        const onClose = () => this.toasts.delete(key);
        const close = this.notification.add(message, { ...options, onClose });
        this.toasts.set(key, { ...toast, close });
    }
}
