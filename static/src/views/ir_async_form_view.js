// The form of a job.
import { registry } from "@web/core/registry";
import { FormController } from "@web/views/form/form_controller";
import { formView } from "@web/views/form/form_view";
import { isLive } from "../core/async_job";
import { useLiveView } from "./live_view";

/** Reloads when the job changes. */
export class IrAsyncFormController extends FormController {
    setup() {
        super.setup();
        useLiveView({
            reload: () => this.model.load(),
            canReload: (isNews) => this.model.isReady && (isNews || isLive(this.model.root.data)),
            isConcerned: (job) => job.id === this.model.root.resId,
        });
    }
}

registry.category("views").add("ir_async_form", {
    ...formView,
    Controller: IrAsyncFormController,
});
