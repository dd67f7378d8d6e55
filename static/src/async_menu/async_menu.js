// The menu *Background jobs* in the top bar.
import { Component, useEffect, useState } from "@odoo/owl";
import { browser } from "@web/core/browser/browser";
import { useCommand } from "@web/core/commands/command_hook";
import { Dropdown } from "@web/core/dropdown/dropdown";
import { useDropdownState } from "@web/core/dropdown/dropdown_hooks";
import { _t } from "@web/core/l10n/translation";
import { registry } from "@web/core/registry";
import { useService } from "@web/core/utils/hooks";
import { formatInteger } from "@web/views/fields/formatters";
import {
    getShownState,
    isLive,
    isResultWaiting,
    isScheduleUnknown,
    needsAttention,
} from "../core/async_job";
import { AsyncJobItem } from "./async_job_item";

// The views show more.
export const MAX_ITEMS = 20;
// A job still queued after this is dated or waits in line. The server knows which.
const QUEUED_DELAY = 1000;

/** The jobs of the user, in the top bar. */
export class AsyncMenu extends Component {
    static template = "ir_async.AsyncMenu";
    static components = { AsyncJobItem, Dropdown };
    static props = {};

    setup() {
        this.asyncJob = useService("async_job");
        this.jobsById = useState(this.asyncJob.jobs);
        this.hiddenIds = useState(this.asyncJob.hidden);
        this.older = useState(this.asyncJob.older);
        this.dropdown = useDropdownState();
        this.clock = useState({ now: Date.now() });
        useEffect(
            (isTicking) => {
                if (isTicking) {
                    const interval = browser.setInterval(() => this.tick(), 1000);
                    return () => browser.clearInterval(interval);
                }
            },
            () => [this.dropdown.isOpen && this.isRunning]
        );
        useEffect(
            (isWondering) => {
                if (isWondering) {
                    const learn = () => this.asyncJob.sync.learnSchedules();
                    const timeout = browser.setTimeout(learn, QUEUED_DELAY);
                    return () => browser.clearTimeout(timeout);
                }
            },
            () => [this.dropdown.isOpen && this.jobs.some(isScheduleUnknown)]
        );
        useCommand(_t("Background jobs"), () => this.dropdown.open(), {
            isAvailable: () => this.isDisplayed,
        });
    }

    /** Named jobs: running ones, then those with a result or an error, then queued ones, the latest of each first. */
    get jobs() {
        return Object.values(this.jobsById)
            .filter((job) => job.name && !this.hiddenIds.has(job.id))
            .map((job) => [getRank(job), job.id, job]) // ranked once each, as there may be hundreds
            .sort(([rankA, idA], [rankB, idB]) => rankA - rankB || idB - idA)
            .map(([_rank, _id, job]) => job);
    }

    get items() {
        const running = this.jobs.filter((job) => job.state === "processing").length;
        return this.jobs.slice(0, Math.max(MAX_ITEMS, running));
    }

    /** The number of jobs that only the views show, in the language of the user. */
    get moreCount() {
        const count = this.jobs.length - this.items.length + this.older.count;
        return count && formatInteger(count);
    }

    get isDisplayed() {
        return this.jobs.length > 0 || this.dropdown.isOpen;
    }

    get isRunning() {
        return this.jobs.some((job) => job.state === "processing");
    }

    get canDismissAll() {
        return this.jobs.filter((job) => !isLive(job)).length > 1;
    }

    /** The number of jobs that need attention: unopened results, and failures. */
    get count() {
        return this.jobs.filter(needsAttention).length;
    }

    get hasFailures() {
        return this.jobs.some((job) => job.state === "failed");
    }

    /** The same in words. */
    get summary() {
        const count = (isCounted) => this.jobs.filter(isCounted).length;
        const running = count((job) => job.state === "processing");
        const ready = count(isResultWaiting);
        const failed = count((job) => job.state === "failed");
        return [
            running && _t("%s running", running),
            ready && (ready === 1 ? _t("1 result ready") : _t("%s results ready", ready)),
            failed && _t("%s failed", failed),
        ]
            .filter(Boolean)
            .join(", ");
    }

    get label() {
        const name = _t("Background jobs").toString();
        return this.summary ? `${name}, ${this.summary}` : name;
    }

    beforeOpen() {
        this.tick();
        this.asyncJob.toasts.closeAll(); // they would cover the list
    }

    tick() {
        this.clock.now = Date.now();
    }

    openAll() {
        this.dropdown.close();
        return this.asyncJob.openAll();
    }

    dismissAll() {
        return this.asyncJob.dismissAll();
    }
}

function getRank(job) {
    if (job.state === "processing") {
        return 0;
    }
    if (["succeeded", "failed"].includes(getShownState(job))) {
        return 1;
    }
    return isLive(job) ? 2 : 3;
}

registry.category("systray").add("ir_async.async_menu", { Component: AsyncMenu }, { sequence: 22 });
