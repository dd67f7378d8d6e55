// The kanban of jobs.
import { registry } from "@web/core/registry";
import { KanbanController } from "@web/views/kanban/kanban_controller";
import { kanbanView } from "@web/views/kanban/kanban_view";
import { reloadRows, useLiveView } from "./live_view";

/** Reloads when jobs change. */
export class IrAsyncKanbanController extends KanbanController {
    setup() {
        super.setup();
        useLiveView({
            reload: () => reloadRows(this.model),
            canReload: () => this.model.isReady && !this.model.root.selection?.length,
        });
    }
}

registry.category("views").add("ir_async_kanban", {
    ...kanbanView,
    Controller: IrAsyncKanbanController,
});
