// The list of jobs.
import { registry } from "@web/core/registry";
import { ListController } from "@web/views/list/list_controller";
import { listView } from "@web/views/list/list_view";
import { reloadRows, useLiveView } from "./live_view";

/** Reloads when jobs change, unless rows are selected or edited. */
export class IrAsyncListController extends ListController {
    setup() {
        super.setup();
        useLiveView({
            reload: () => reloadRows(this.model),
            canReload: () => {
                const { isReady, root } = this.model;
                return isReady && !root.selection.length && !root.editedRecord;
            },
        });
    }
}

registry.category("views").add("ir_async_list", {
    ...listView,
    Controller: IrAsyncListController,
});
