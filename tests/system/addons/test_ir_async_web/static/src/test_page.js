import { Component, useState } from "@odoo/owl";
import { registry } from "@web/core/registry";
import { useService } from "@web/core/utils/hooks";

class TestPage extends Component {
    static template = "test_ir_async_web.TestPage";
    static props = ["*"];

    setup() {
        this.asyncJob = useService("async_job");
        this.outcomes = ["nothing", "action", "large", "error"];
        this.state = useState({ said: "" });
    }

    /** As the README says. */
    async run() {
        const job = await this.asyncJob.run({
            model: "test.async.web",
            method: "start",
            args: ["action"],
        });
        this.state.said = job.inBackground ? "in background" : "opened";
    }

    async start(outcome) {
        try {
            const job = await this.asyncJob.asyncRpc({
                model: "test.async.web",
                method: "start",
                args: [outcome],
            });
            this.state.said = `${job.state} ${JSON.stringify(job.payload)?.length}`;
        } catch (error) {
            this.state.said = error.name;
            throw error;
        }
    }
}

registry.category("actions").add("test_ir_async_web", TestPage);
