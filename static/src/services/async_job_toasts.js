// Toasts about ended jobs, in one of the tabs.
import { browser } from "@web/core/browser/browser";
import { _t } from "@web/core/l10n/translation";
import { isDownload, isResultWaiting } from "../core/async_job";
import { ForegroundTab } from "../core/foreground_tab";

/** @typedef {import("../core/async_job").AsyncJob} AsyncJob */

// Jobs that end shortly after each other share one toast. While it is shown, further ones may wait longer.
const DELAYS = { quiet: 200, max: 1500 };
const SUMMARY_DELAYS = { quiet: 1000, max: 3000 };
const MAX_TOASTS = 3;
const AUTOCLOSE_DELAY = 8000;
const SUMMARY = "summary";
// A toast must be short: the dialog has the whole error, the list the whole name.
const MAX_LENGTH = 150;

export class AsyncJobToasts {
    /**
     * @param {import("./async_job_service").AsyncJobService} service
     * @param {Partial<import("services").Services>} services
     */
    constructor(service, services) {
        this.setup(service, services);
    }

    setup(service, { multi_tab, notification }) {
        this.service = service;
        this.notification = notification;
        this.foregroundTab = new ForegroundTab(multi_tab);
        /** @type {Map<number, AsyncJob>} */
        this.ended = new Map();
        this.toasts = new Map();
        this.deadline = 0;
        this.timeout = null;
    }

    /** Report the end of a job soon. */
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

    /** Report the end of a job, unless a toast does so already. */
    offer(job) {
        if (!this.ended.has(job.id) && !this.toasts.has(job.id)) {
            this.add(job);
        }
    }

    /**
     * Close the toast of a job once it is out of date: the job runs again, its result was opened in another tab…
     *
     * @param {number} jobId
     * @param {string} [state] keep a toast about this state
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

    /** Close all toasts, as the open list shows the same. */
    closeAll() {
        [...this.toasts.values()].forEach((toast) => toast.close());
    }

    async show() {
        await this.service.calls.whenAnswered();
        await this.service.sync.learning;
        const jobs = [...this.ended.values()];
        this.ended.clear();
        if (!jobs.length || !(await this.foregroundTab.isHere())) {
            return;
        }
        if (this.toasts.has(SUMMARY) || jobs.length > MAX_TOASTS) {
            // A summary takes in what other toasts still show, but for those that offer something.
            const shown = [...this.toasts.values()].flatMap((toast) => toast.jobs || []);
            shown.forEach(({ id }) => this.toasts.get(id)?.close());
            const all = new Map([...shown, ...jobs].map((job) => [job.id, job]));
            this.showSummary([...all.values()]);
        } else {
            jobs.forEach((job) => this.showJob(this.service.jobs[job.id] || job));
        }
    }

    /** @param {AsyncJob} job */
    showJob(job) {
        const buttons = [];
        const addButton = (name) =>
            buttons.push({
                name: name.toString(),
                primary: true,
                onClick: () => {
                    this.remove(job.id);
                    return this.service.open(job.id);
                },
            });
        const options = {
            title: getTitle(job.name),
            autocloseDelay: AUTOCLOSE_DELAY,
            buttons,
        };
        let message;
        if (job.state === "failed") {
            Object.assign(options, { type: "danger", sticky: true });
            message = shorten(job.payload?.error?.data?.message) || _t("It failed.");
            addButton(_t("Show error"));
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
        this.open(job.id, message, options, {
            state: job.state,
            jobs: buttons.length ? [] : [job],
        });
    }

    /** @param {AsyncJob[]} jobs */
    showSummary(jobs) {
        const failed = jobs.filter(({ state }) => state === "failed");
        const shownIds = (failed.length ? failed : jobs).map(({ id }) => id);
        const onClick = () => {
            this.toasts.get(SUMMARY)?.close();
            return this.service.openAll(shownIds);
        };
        const name = (failed.length ? _t("Show failed jobs") : _t("Show")).toString();
        this.open(
            SUMMARY,
            failed.length
                ? _t("%(failed)s of %(count)s jobs failed.", {
                      failed: failed.length,
                      count: jobs.length,
                  })
                : _t("%(count)s jobs have ended.", { count: jobs.length }),
            {
                type: failed.length ? "danger" : "success",
                title: _t("Background jobs"),
                sticky: failed.length > 0,
                autocloseDelay: AUTOCLOSE_DELAY,
                buttons: [{ name, primary: true, onClick }],
            },
            { jobs }
        );
    }

    /**
     * Report that the page is free again.
     *
     * @param {string|false} [name] of the job
     * @param {boolean} [byUser=false] the user has freed it
     */
    showBackground(name, byUser = false) {
        const message = byUser
            ? _t("You can keep working; the result will appear under Background jobs.")
            : _t(
                  "This is taking longer than expected. You can keep working; the result will appear under Background jobs."
              );
        this.open(Symbol("background"), message, { title: getTitle(name), type: "info" });
    }

    open(key, message, options, toast) {
        this.toasts.get(key)?.close();
        const onClose = () => this.toasts.delete(key);
        const close = this.notification.add(message, {
            ...options,
            className: "o_ir_async_toast",
            onClose,
        });
        this.toasts.set(key, { ...toast, close });
    }
}

/** @param {string|false} [name] of a job */
function getTitle(name) {
    return shorten(name || "") || _t("Background job");
}

/** @param {string} [text] */
function shorten(text = "") {
    const line = text.replace(/\s+/g, " ").trim();
    return line.length > MAX_LENGTH ? `${line.slice(0, MAX_LENGTH).trim()}…` : line;
}
