import { registry } from "@web/core/registry";

registry.category("web_tour.tours").add("ir_async_tour", {
    steps: () => [
        {
            content: "Two jobs of before are in the top bar: a result waits, a failure too",
            trigger: ".o_ir_async_systray:has(.o_ir_async_counter:contains(2))",
            run: "click",
        },
        {
            content: "Another one has failed",
            trigger: ".o_ir_async_job[data-state=failed]:contains(Nobody knows)",
        },
        {
            content: "Run it again",
            trigger: ".o_ir_async_job[data-state=failed] .o_ir_async_retry",
            run: "click",
        },
        {
            content: "Think better of it",
            trigger: ".o_ir_async_job[data-state=created] .o_ir_async_cancel",
            run: "click",
        },
        {
            content: "Take it off the list",
            trigger: ".o_ir_async_job[data-state=cancelled] .o_ir_async_dismiss",
            run: "click",
        },
        {
            trigger: ".o_ir_async_jobs:not(:has(.o_ir_async_job[data-state=cancelled]))",
        },
        {
            content: "Open the result of the first one",
            trigger: ".o_ir_async_job[data-state=succeeded] .o_ir_async_open",
            run: "click",
        },
        {
            content: "Here it is",
            trigger: ".o_breadcrumb:contains(Result of the job)",
        },
        {
            content: "Nothing waits any more",
            trigger: ".o_ir_async_systray:not(:has(.o_ir_async_counter))",
            run: "click",
        },
        {
            trigger: ".o_ir_async_job[data-state=done]",
        },
        {
            content: "All of them are in the view, the cancelled one too",
            trigger: ".o_ir_async_all",
            run: "click",
        },
        {
            trigger: ".o_list_view .o_data_row:contains(Cancelled)",
        },
    ],
});
