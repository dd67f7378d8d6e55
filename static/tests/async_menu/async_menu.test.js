import { AsyncMenu, MAX_ITEMS } from "@ir_async/async_menu/async_menu";
import {
    advanceTime,
    animationFrame,
    click,
    expect,
    press,
    queryAll,
    queryAllTexts,
    queryOne,
    test,
} from "@odoo/hoot";
import {
    MockServer,
    contains,
    getService,
    mockService,
    mountWithCleanup,
    onRpc,
} from "@web/../tests/web_test_helpers";
import {
    changeJob,
    defineIrAsyncModels,
    makeAsyncJobEnv,
    makeErrorPayload,
    mockNotifications,
    nextMessages,
    startJob,
} from "../ir_async_test_helpers";

defineIrAsyncModels();

const ACTION = {
    type: "ir.actions.act_window",
    res_model: "res.partner",
    views: [[false, "list"]],
};
const DOWNLOAD = { type: "ir.actions.act_url", url: "/web/content/7?download=true" };

async function mountMenu() {
    mockNotifications();
    const env = await makeAsyncJobEnv();
    await mountWithCleanup(AsyncMenu, { env });
}

async function startEnded(name, state, payload) {
    const jobId = startJob(name);
    await changeJob(jobId, state, { payload });
    return jobId;
}

test("is hidden for users without jobs", async () => {
    await mountMenu();
    expect(".o_ir_async_systray").toHaveCount(0);
    startJob(false); // without a name: not listed
    await nextMessages();
    expect(".o_ir_async_systray").toHaveCount(0);
    startJob("Export");
    await nextMessages();
    expect(".o_ir_async_systray").toHaveCount(1);
});

test("spins while something runs, and counts the results", async () => {
    await mountMenu();
    const jobId = startJob("Export");
    await nextMessages();
    expect(".o_ir_async_systray .fa-tasks").toHaveCount(1);
    expect(".o_ir_async_counter").toHaveCount(0);
    await changeJob(jobId, "processing");
    expect(".o_ir_async_systray .o_ir_async_spin").toHaveCount(1);
    await changeJob(jobId, "succeeded", { payload: { result: ACTION } });
    expect(".o_ir_async_systray .o_ir_async_spin").toHaveCount(0);
    expect(".o_ir_async_counter").toHaveText("1");
    expect(".o_ir_async_systray").toHaveAttribute("aria-label", "Background jobs, 1 results ready");
    await startEnded("Number", "succeeded", { result: 42 }); // nothing to open
    await startEnded("File", "succeeded", { result: DOWNLOAD });
    expect(".o_ir_async_counter").toHaveText("2");
    await changeJob(jobId, "done");
    expect(".o_ir_async_counter").toHaveText("1");
});

test("a row says how the job is, and what can be done", async () => {
    await mountMenu();
    for (const [state, payload] of [
        ["created"],
        ["waiting"],
        ["processing"],
        ["succeeded", { result: ACTION }],
        ["succeeded", { result: DOWNLOAD }],
        ["succeeded", { result: 42 }],
        ["done"],
        ["failed", makeErrorPayload()],
        ["cancelled"],
    ]) {
        await startEnded("Export", state, payload);
    }
    await click(".o_ir_async_systray");
    await animationFrame();
    expect(
        queryAll(".o_ir_async_job").map((row) =>
            [
                queryOne(".o_ir_async_job_state > span:first", { root: row }).textContent,
                ...queryAll("button", { root: row }).map(
                    (button) => button.title || button.textContent.trim()
                ),
            ].join(" | ")
        )
    ).toEqual([
        "Running | Cancel",
        "Waiting for other jobs | Cancel",
        "Waiting for its turn | Cancel",
        "Cancelled | Retry | Dismiss",
        "Failed | Show error | Retry | Dismiss",
        "Done | Dismiss",
        "Ready | Dismiss",
        "Ready | Download | Dismiss",
        "Ready | Open | Dismiss",
    ]);
    expect(".o_ir_async_job_error").toHaveText("Division by zero");
});

test("progress, message and elapsed time", async () => {
    await mountMenu();
    const jobId = startJob("Export");
    await changeJob(jobId, "processing");
    await click(".o_ir_async_systray");
    await animationFrame();
    expect(".o_ir_async_indeterminate").toHaveCount(1);
    await changeJob(jobId, "processing", {
        progress: { done: 250, total: 1000, message: "250 rows" },
    });
    expect(".o_ir_async_progress .progress-bar").toHaveStyle({ width: "25%" }, { inline: true });
    expect(".o_ir_async_progress [role=progressbar]").toHaveAttribute("aria-valuenow", "25");
    expect(".o_ir_async_progress_message").toHaveText("250 rows 25%", { inline: true });
    await advanceTime(65000);
    await animationFrame();
    expect(".o_ir_async_elapsed").toHaveText(/^1:0\d$/);
});

test("the buttons", async () => {
    mockService("action", {
        doAction(action) {
            expect.step(action.res_model || action);
        },
    });
    onRpc("ir.async", "*", ({ method, args }) => expect.step([method, args[0]].join(" ")));
    await mountMenu();
    const running = startJob("Running");
    const failed = await startEnded("Failed", "failed", makeErrorPayload());
    const ready = await startEnded("Ready", "succeeded", { result: ACTION });
    await contains(".o_ir_async_systray").click();
    await contains(`[data-id='${running}'] .o_ir_async_cancel`).click();
    await contains(`[data-id='${failed}'] .o_ir_async_retry`).click();
    await nextMessages();
    expect.verifySteps([`cancel ${running}`, `retry ${failed}`]);
    await contains(`[data-id='${running}'] .o_ir_async_dismiss`).click();
    await nextMessages();
    expect.verifySteps([`dismiss ${running}`]);
    expect(`[data-id='${running}']`).toHaveCount(0);
    await contains(`[data-id='${ready}'] .o_ir_async_open`).click();
    await nextMessages();
    expect.verifySteps(["res.partner", `complete ${ready}`]);
    expect(".o_ir_async_menu_content").toHaveCount(0, { message: "it makes room for the result" });
    await contains(".o_ir_async_systray").click();
    await contains(".o_ir_async_all").click();
    expect.verifySteps(["ir_async.ir_async_action_mine"]);
});

test("dismiss all; the empty list stays open", async () => {
    await mountMenu();
    const running = startJob("Running");
    await startEnded("First", "done");
    await startEnded("Second", "done");
    await contains(".o_ir_async_systray").click();
    await contains(".o_ir_async_dismiss_all").click();
    await nextMessages();
    expect(queryAllTexts(".o_ir_async_job_name")).toEqual(["Running"]);
    await changeJob(running, "done");
    await contains(".o_ir_async_dismiss").click();
    await nextMessages();
    expect(".o_ir_async_empty").toHaveCount(1);
});

test("many jobs: the latest", async () => {
    await mountMenu();
    for (let i = 1; i <= MAX_ITEMS + 5; i++) {
        startJob(`Job ${i}`);
    }
    await nextMessages();
    await contains(".o_ir_async_systray").click();
    expect(".o_ir_async_job").toHaveCount(MAX_ITEMS);
    expect(".o_ir_async_job_name:first").toHaveText(`Job ${MAX_ITEMS + 5}`);
    expect(".o_ir_async_all").toHaveText("All my jobs (5 more)");
});

test.tags("desktop");
test("with the keyboard", async () => {
    onRpc("ir.async", "*", ({ method, args }) => expect.step([method, args[0]].join(" ")));
    await mountMenu();
    const jobId = startJob("Export");
    await nextMessages();
    queryOne(".o_ir_async_systray").focus();
    await press("Enter");
    await animationFrame();
    await press("ArrowDown");
    await animationFrame();
    expect(".o_ir_async_cancel").toBeFocused();
    await press("Enter");
    await nextMessages();
    expect.verifySteps([`cancel ${jobId}`]);
    await press("Escape");
    await animationFrame();
    expect(".o_ir_async_menu_content").toHaveCount(0);
    expect(".o_ir_async_systray").toBeFocused();
});

test.tags("mobile");
test("is a bottom sheet on a phone", async () => {
    await mountMenu();
    startJob("Export");
    await nextMessages();
    await contains(".o_ir_async_systray").click();
    expect(".o_bottom_sheet .o_ir_async_job").toHaveCount(1);
});

test("a second tab that opens the result empties the badge of this one", async () => {
    await mountMenu();
    const jobId = await startEnded("Export", "succeeded", { result: ACTION });
    expect(".o_ir_async_counter").toHaveText("1");
    MockServer.env["ir.async"].complete([jobId]);
    await nextMessages();
    expect(".o_ir_async_counter").toHaveCount(0);
    expect(getService("async_job").jobs[jobId].state).toBe("done");
});
