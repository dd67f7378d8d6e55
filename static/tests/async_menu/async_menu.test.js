import { AsyncMenu, MAX_ITEMS } from "@ir_async/async_menu/async_menu";
import {
    advanceTime,
    animationFrame,
    click,
    expect,
    mockDate,
    press,
    queryAll,
    queryAllTexts,
    queryOne,
    test,
    waitFor,
} from "@odoo/hoot";
import {
    MockServer,
    contains,
    getService,
    mockService,
    mountWithCleanup,
    onRpc,
    patchWithCleanup,
} from "@web/../tests/web_test_helpers";
import { downloadFile } from "@web/core/network/download";
import {
    CLOSE,
    changeJob,
    changeSilently,
    defineIrAsyncModels,
    makeAsyncJobEnv,
    makeErrorPayload,
    mockNotifications,
    nextMessages,
    sendMessage,
    startEnded,
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
    expect(".o_ir_async_systray").toHaveAttribute("aria-label", "Background jobs, 1 result ready");
    await startEnded("Number", "succeeded", { result: 42 }); // nothing to open
    await startEnded("Wizard", "succeeded", { result: CLOSE });
    await startEnded("Falsy", "succeeded", { result: false });
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
        ["succeeded", { result: CLOSE }],
        ["succeeded", { result: false }],
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
        "Failed | Show error | Retry | Dismiss",
        "Ready | Show result | Dismiss",
        "Ready | Download | Dismiss",
        "Ready | Open | Dismiss",
        "Waiting | Cancel",
        "Queued | Cancel",
        "Cancelled | Retry | Dismiss",
        "Done | Dismiss",
        "Done | Dismiss",
        "Done | Dismiss",
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
    expect(".o_ir_async_all").toHaveText("All background jobs (5 more)");
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
    expect(".o_ir_async_cancel").toBeFocused(); // a job comes first
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

test("running jobs are always listed, then those that ended with something, then queued ones", async () => {
    await mountMenu();
    const running = startJob("Running");
    await changeJob(running, "processing");
    await startEnded("Ready", "succeeded", { result: ACTION });
    await startEnded("Failed", "failed", makeErrorPayload());
    await startEnded("Done", "done");
    for (let i = 1; i <= MAX_ITEMS; i++) {
        startJob(`Queued ${i}`);
    }
    await nextMessages();
    await contains(".o_ir_async_systray").click();
    expect(queryAllTexts(".o_ir_async_job_name").slice(0, 4)).toEqual([
        "Running",
        "Failed",
        "Ready",
        `Queued ${MAX_ITEMS}`,
    ]);
    expect(".o_ir_async_job").toHaveCount(MAX_ITEMS);
    expect(".o_ir_async_all").toHaveText("All background jobs (4 more)");
});

test("all running jobs are listed, however many", async () => {
    await mountMenu();
    for (let i = 1; i <= MAX_ITEMS + 5; i++) {
        startJob(`Job ${i}`, { state: "processing" });
    }
    startJob("Queued");
    await nextMessages();
    await contains(".o_ir_async_systray").click();
    expect(".o_ir_async_job[data-state=processing]").toHaveCount(MAX_ITEMS + 5);
    expect(".o_ir_async_all").toHaveText("All background jobs (1 more)");
});

test("counts are right after a reload", async () => {
    mockNotifications();
    const env = await makeAsyncJobEnv({ ready: false });
    for (let i = 1; i <= 1500; i++) {
        MockServer.env["ir.async"].create([{ name: `Job ${i}` }]);
    }
    env.bus.trigger("WEB_CLIENT_READY");
    await nextMessages();
    await mountWithCleanup(AsyncMenu, { env });
    await contains(".o_ir_async_systray").click();
    expect(".o_ir_async_all").toHaveText("All background jobs (1,480 more)");
    await changeJob(1, "processing"); // it was not listed
    expect(".o_ir_async_job_name:first").toHaveText("Job 1");
    expect(".o_ir_async_all").toHaveText("All background jobs (1,480 more)");
    startJob("New");
    await nextMessages();
    expect(".o_ir_async_all").toHaveText("All background jobs (1,481 more)");
});

test("dismiss all: also the jobs that are not listed", async () => {
    mockNotifications();
    const env = await makeAsyncJobEnv({ ready: false });
    for (let i = 1; i <= 150; i++) {
        MockServer.env["ir.async"].create([{ name: `Job ${i}`, state: "done" }]);
    }
    env.bus.trigger("WEB_CLIENT_READY");
    await nextMessages();
    await mountWithCleanup(AsyncMenu, { env });
    await contains(".o_ir_async_systray").click();
    await contains(".o_ir_async_dismiss_all").click();
    await nextMessages();
    expect(MockServer.env["ir.async"].filter((job) => !job.dismissed)).toHaveLength(0);
    expect(".o_ir_async_job").toHaveCount(0);
});

test("the badge counts failures", async () => {
    await mountMenu();
    const jobId = await startEnded("Failed", "failed", makeErrorPayload());
    await startEnded("Ready", "succeeded", { result: ACTION });
    expect(".o_ir_async_counter").toHaveText("2");
    expect(".o_ir_async_counter").toHaveClass("text-bg-danger");
    expect(".o_ir_async_systray").toHaveAttribute(
        "aria-label",
        "Background jobs, 1 result ready, 1 failed"
    );
    await changeJob(jobId, "created", { payload: false });
    expect(".o_ir_async_counter").toHaveText("1");
    expect(".o_ir_async_counter").not.toHaveClass("text-bg-danger");
});

test("a dated job says when", async () => {
    mockDate("2026-03-10 08:00:00");
    await mountMenu();
    startJob("Soon", { scheduled_in: 5400 });
    startJob("Next week", { scheduled_in: 7 * 86400 });
    const payload = makeErrorPayload();
    await changeJob(startJob("Again", { scheduled_in: 600 }), "created", { payload });
    startJob("Stuck", { state: "waiting", is_stuck: true });
    startJob("Now");
    await nextMessages();
    await contains(".o_ir_async_systray").click();
    await advanceTime(1000); // the server is asked
    await nextMessages();
    const rows = Object.fromEntries(
        queryAll(".o_ir_async_job").map((row) => [
            queryOne(".o_ir_async_job_name", { root: row }).textContent,
            queryOne(".o_ir_async_job_state", { root: row }).textContent,
        ])
    );
    expect(rows["Soon"]).toMatch(/^Queued · starts at \d+:\d\d/);
    expect(rows["Next week"]).toMatch(/^Queued · starts at Mar 17, /);
    expect(rows["Again"]).toMatch(/^Queued · runs again at /);
    expect(rows["Stuck"]).toBe("Waiting · a previous job failed");
    expect(rows["Now"]).toBe("Queued");
});

test("a finished download can be downloaded again", async () => {
    patchWithCleanup(downloadFile, {
        _download: async (url) => expect.step(url),
    });
    await mountMenu();
    const jobId = await startEnded("File", "succeeded", { result: DOWNLOAD });
    await changeJob(jobId, "done");
    await contains(".o_ir_async_systray").click();
    expect(".o_ir_async_open").toHaveText("Download again");
    await contains(".o_ir_async_open").click();
    await nextMessages();
    expect.verifySteps([DOWNLOAD.url]);
});

test("large data has no dead button, and does not count", async () => {
    await mountMenu();
    const jobId = startJob("Large");
    await nextMessages();
    const payload = { result: "x".repeat(70_000) };
    changeSilently(jobId, { state: "succeeded", payload });
    await sendMessage({ id: jobId, name: "Large", state: "succeeded", revision: 2 });
    await nextMessages();
    expect(".o_ir_async_counter").toHaveCount(0);
    await contains(".o_ir_async_systray").click();
    expect(".o_ir_async_open").toHaveCount(0);
    expect(".o_ir_async_show").toHaveText("Show result");
});

test("a running job is not cancelled without a question", async () => {
    onRpc("ir.async", "cancel", ({ args }) => expect.step(`cancel ${args[0]}`));
    await mountMenu();
    const jobId = startJob("Export");
    await changeJob(jobId, "processing");
    await contains(".o_ir_async_systray").click();
    const cancel = async () => {
        await contains(".o_ir_async_cancel").click();
        await waitFor(".modal");
    };
    await cancel();
    expect(queryAllTexts(".modal-footer button")).toEqual(["Cancel Job", "No, keep it"]);
    await contains(".modal-footer button:contains(No, keep it)").click();
    expect.verifySteps([]);
    await cancel();
    await contains(".modal-footer button:contains(Cancel Job)").click();
    await nextMessages();
    expect.verifySteps([`cancel ${jobId}`]);
});

test("the question is taken back when the job ends by itself", async () => {
    await mountMenu();
    const jobId = startJob("Export");
    await changeJob(jobId, "processing");
    await contains(".o_ir_async_systray").click();
    await contains(".o_ir_async_cancel").click();
    await waitFor(".modal");
    await changeJob(startJob("Other"), "done");
    expect(".modal").toHaveCount(1);
    await changeJob(jobId, "done");
    await animationFrame();
    expect(".modal").toHaveCount(0);
});

test("screen readers: labels, and no live region that changes all the time", async () => {
    await mountMenu();
    await changeJob(startJob("First"), "processing");
    await changeJob(startJob("Second"), "processing", { progress: { done: 1234.5, total: 5000 } });
    await contains(".o_ir_async_systray").click();
    const bars = queryAll("[role=progressbar]");
    expect(bars.map((bar) => bar.getAttribute("aria-label"))).toEqual([
        "Progress of Second",
        "Progress of First",
    ]);
    expect(bars.map((bar) => bar.getAttribute("aria-valuenow"))).toEqual(["24", null]);
    expect(".o_ir_async_progress_message").toHaveText(/1,234.5.? of 5,000/);
    expect(".o_ir_async_menu_content [aria-live]").toHaveCount(0);
    expect(".o_ir_async_menu_content [role=status]").toHaveText("2 running");
});

test("opening the list closes the toasts that would cover it", async () => {
    const toasts = mockNotifications();
    const env = await makeAsyncJobEnv();
    await mountWithCleanup(AsyncMenu, { env });
    await startEnded("Failed", "failed", makeErrorPayload());
    await advanceTime(300);
    getService("async_job").toasts.showBackground("First");
    getService("async_job").toasts.showBackground("Second");
    expect(toasts.map(({ isOpen }) => isOpen)).toEqual([true, true, true]);
    await contains(".o_ir_async_systray").click();
    expect(toasts.map(({ isOpen }) => isOpen)).toEqual([false, false, false]);
});

test("icons turn around their own centre", async () => {
    await mountMenu();
    await changeJob(startJob("Export"), "processing");
    await contains(".o_ir_async_systray").click();
    expect(".o_ir_async_spin").toHaveCount(2);
    for (const icon of queryAll(".o_ir_async_spin")) {
        expect(icon.offsetWidth).toBeGreaterThan(5);
        expect(icon.offsetHeight).toBe(icon.offsetWidth);
    }
});
