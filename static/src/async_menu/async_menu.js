import { Component, useEffect, useState } from "@odoo/owl";
import { browser } from "@web/core/browser/browser";
import { useCommand } from "@web/core/commands/command_hook";
import { Dropdown } from "@web/core/dropdown/dropdown";
import { useDropdownState } from "@web/core/dropdown/dropdown_hooks";
import { _t } from "@web/core/l10n/translation";
import { registry } from "@web/core/registry";
import { useService } from "@web/core/utils/hooks";
import { isLive, isResultWaiting } from "../core/async_job";
import { AsyncJobItem } from "./async_job_item";

// There are views for more.
export const MAX_ITEMS = 20;

/** The jobs of the user, in the top bar. */
export class AsyncMenu extends Component {
    static template = "ir_async.AsyncMenu";
    static components = { AsyncJobItem, Dropdown };
    static props = {};

    setup() {
        this.asyncJob = useService("async_job");
        this.jobsById = useState(this.asyncJob.jobs);
        this.hiddenIds = useState(this.asyncJob.hidden);
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
        useCommand(_t("Background jobs"), () => this.dropdown.open(), {
            isAvailable: () => this.isDisplayed,
        });
    }

    /** The jobs that have a name, the latest first, those that are not over before the others. */
    get jobs() {
        return Object.values(this.jobsById)
            .filter((job) => job.name && !this.hiddenIds.has(job.id))
            .sort((a, b) => isLive(b) - isLive(a) || b.id - a.id);
    }

    get items() {
        return this.jobs.slice(0, MAX_ITEMS);
    }

    get isDisplayed() {
        return this.jobs.length > 0 || this.dropdown.isOpen;
    }

    get isRunning() {
        return this.jobs.some((job) => job.state === "processing");
    }

    get endedIds() {
        return this.jobs.filter((job) => !isLive(job)).map((job) => job.id);
    }

    /** How many results the user did not see yet. */
    get count() {
        return this.jobs.filter(isResultWaiting).length;
    }

    get label() {
        return this.count
            ? _t("Background jobs, %s results ready", this.count)
            : this.isRunning
              ? _t("Background jobs, running")
              : _t("Background jobs");
    }

    tick() {
        this.clock.now = Date.now();
    }

    openAll() {
        this.dropdown.close();
        return this.asyncJob.openAll();
    }

    dismissAll() {
        return this.asyncJob.dismiss(this.endedIds);
    }
}

registry.category("systray").add("ir_async.async_menu", { Component: AsyncMenu }, { sequence: 22 });
