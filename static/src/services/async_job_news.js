// The effects of news about jobs: toasts, settled promises, and the event `async_job`.
import { browser } from "@web/core/browser/browser";
import { isLive } from "../core/async_job";

export class AsyncJobNews {
    /**
     * @param {import("@odoo/owl").EventBus} bus of the environment
     * @param {Pick<import("./async_job_service").AsyncJobService, "store"|"toasts"|"watchers">} parts
     */
    constructor(bus, parts) {
        this.setup(bus, parts);
    }

    setup(bus, { store, toasts, watchers }) {
        this.bus = bus;
        this.store = store;
        this.toasts = toasts;
        this.watchers = watchers;
        this.isLoaded = false;
        this.pageStart = Date.now() - browser.performance.now();
    }

    /**
     * Apply the rows that came with the page.
     *
     * A job that ended before the page was loaded is no news. A job that ended during the load is.
     */
    load(rows) {
        const heard = { ...this.store.jobs };
        rows.forEach((row) => this.apply(row));
        for (const row of rows) {
            const job = this.store.jobs[row.id];
            const wasLive = heard[row.id] && row.revision < heard[row.id].revision;
            if (job && !isLive(job) && (wasLive || this.isRecent(job, row))) {
                this.announce(job);
            }
        }
        this.isLoaded = true;
    }

    /** @param {Parameters<import("./async_job_store").AsyncJobStore["update"]>[0]} news a message or a row */
    apply(news) {
        const { job, old } = this.store.update(news, this.watchers.has(news.id)) || {};
        if (!job) {
            return;
        }
        if (isLive(job)) {
            this.toasts.remove(job.id);
        } else if (old && !isLive(old)) {
            this.toasts.remove(job.id, job.state);
        } else if (this.isLoaded && (old || this.isRecent(job, news))) {
            this.announce(job);
        }
        this.watchers.settle(job);
        if (news.dismissed) {
            this.forget(job);
        }
        this.bus.trigger("async_job", this.store.jobs[job.id] || job);
    }

    /** Return whether a job ended after the page began to load, as it always did if a message reports it. */
    isRecent({ endedAt }, news) {
        const isRow = "elapsed" in news;
        return !isRow || (typeof news.ended_ago === "number" && endedAt >= this.pageStart);
    }

    /** Report the end of a job in a toast, unless a caller waits for it. */
    announce(job) {
        if (job.name && !this.watchers.has(job.id)) {
            this.toasts.add(job);
        }
    }

    forget(job) {
        this.toasts.remove(job.id);
        this.store.forget(job);
    }
}
