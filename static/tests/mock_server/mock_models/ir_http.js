import { webModels } from "@web/../tests/web_test_helpers";

export class IrHttp extends webModels.IrHttp {
    lazy_session_info() {
        return {
            ...super.lazy_session_info(...arguments),
            async_jobs: this.env["ir.async"].get_user_jobs(),
        };
    }
}
