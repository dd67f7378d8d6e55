import { Component } from "@odoo/owl";
import { DropdownItem } from "@web/core/dropdown/dropdown_item";
import { registry } from "@web/core/registry";
import { useService } from "@web/core/utils/hooks";

/** Contacts ▸ ⚙ ▸ Find Neighbours: a method of the server that takes its time and returns an action. */
export class NeighboursMenu extends Component {
    static template = "ir_async_demo.NeighboursMenu";
    static components = { DropdownItem };
    static props = {};

    setup() {
        this.asyncJob = useService("async_job");
    }

    async search() {
        const job = await this.asyncJob.asyncRpc({
            model: "res.partner",
            method: "start_neighbours_search",
        });
        await this.asyncJob.open(job.id);
    }
}

registry.category("cogMenu").add("ir_async_demo.neighbours", {
    Component: NeighboursMenu,
    groupNumber: 20,
    isDisplayed: ({ config, searchModel }) =>
        searchModel.resModel === "res.partner" && ["list", "kanban"].includes(config.viewType),
});
