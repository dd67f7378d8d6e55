import { REFRESH_DELAY } from "@ir_async/views/live_view";
import {
    advanceTime,
    animationFrame,
    beforeEach,
    describe,
    expect,
    queryAllTexts,
    test,
} from "@odoo/hoot";
import {
    MockServer,
    contains,
    makeMockServer,
    mockService,
    mountView,
    onRpc,
} from "@web/../tests/web_test_helpers";
import {
    changeJob,
    defineIrAsyncModels,
    makeErrorPayload,
    nextMessages,
    startJob,
} from "../ir_async_test_helpers";

describe.current.tags("desktop");
defineIrAsyncModels();
beforeEach(makeMockServer);

const LIST = `
    <list js_class="ir_async_list">
        <field name="name"/>
        <field name="state" widget="badge" decoration-danger="state == 'failed'"/>
        <field name="progress" widget="ir_async_progress"/>
        <field name="duration" widget="ir_async_duration"/>
    </list>`;
const FORM = `
    <form js_class="ir_async_form">
        <field name="state"/>
        <field name="payload" widget="ir_async_payload"/>
    </form>`;

function mountList() {
    return mountView({ type: "list", resModel: "ir.async", arch: LIST });
}

function mountForm(resId) {
    return mountView({ type: "form", resModel: "ir.async", resId, arch: FORM });
}

/** A job that the bus tells nothing about, as those of other users. */
function createJob(values) {
    const [jobId] = MockServer.env["ir.async"].create([{ name: "Export", ...values }]);
    return jobId;
}

test("list: durations, and progress of what runs", async () => {
    createJob({ state: "done", duration: 0.25 });
    createJob({ state: "done", duration: 3725 });
    const progress = { done: 1, total: 4, message: "A quarter" };
    createJob({ state: "processing", duration: 59, progress });
    await mountList();
    expect(queryAllTexts(".o_data_cell[name=duration]")).toEqual(["0:59", "1:02:05", "250 ms"]);
    expect(".o_data_cell[name=progress]:first").toHaveText(/A quarter\s*25%/);
    expect(".o_ir_async_progress").toHaveCount(1);
    await advanceTime(2000);
    await animationFrame();
    expect(".o_data_cell[name=duration]:first").toHaveText("1:01");
});

test("list: follows the jobs, unless some are selected", async () => {
    onRpc("ir.async", "web_search_read", () => expect.step("read"));
    await mountList();
    expect.verifySteps(["read"]);
    const jobId = startJob("Export");
    await nextMessages();
    await advanceTime(1000);
    await animationFrame();
    expect(queryAllTexts(".o_data_cell[name=state]")).toEqual(["Queued"]);
    await changeJob(jobId, "failed", { payload: makeErrorPayload() });
    await advanceTime(1000);
    await animationFrame();
    expect(".o_data_cell[name=state] .text-bg-danger").toHaveText("Failed");
    expect.verifySteps(["read", "read"]);
    await contains(".o_data_row .o_list_record_selector input").click();
    await changeJob(jobId, "created");
    await advanceTime(REFRESH_DELAY);
    await animationFrame();
    expect.verifySteps([]);
    expect(".o_data_row_selected").toHaveCount(1);
});

test("list: follows the jobs of others, once in a while", async () => {
    const jobId = createJob({ state: "processing" });
    await mountList();
    MockServer.env["ir.async"].write([jobId], { state: "done" });
    await advanceTime(REFRESH_DELAY);
    await animationFrame();
    expect(queryAllTexts(".o_data_cell[name=state]")).toEqual(["Done"]);
});

test("form: an error with its traceback", async () => {
    onRpc("ir.async", "web_read", () => expect.step("read"));
    await mountForm(createJob({ state: "failed", payload: makeErrorPayload() }));
    expect(".o_ir_async_payload_message").toHaveText("Division by zero");
    expect(".o_ir_async_traceback").toHaveText(/the server's traceback/);
    expect.verifySteps(["read"]);
    await advanceTime(REFRESH_DELAY);
    expect.verifySteps([]); // nothing to wait for
});

test("form: a result", async () => {
    await mountForm(createJob({ state: "succeeded", payload: { result: { answer: 42 } } }));
    expect(".o_ir_async_payload pre").toHaveText(/"answer": 42/);
    expect(".o_ir_async_payload button").toHaveCount(0);
});

test("form: a result to open", async () => {
    mockService("action", {
        doAction(action) {
            expect.step(action.res_model);
        },
    });
    const result = { type: "ir.actions.act_window", res_model: "res.partner" };
    await mountForm(createJob({ state: "done", payload: { result } }));
    await contains(".o_ir_async_payload .o_ir_async_open").click();
    expect.verifySteps(["res.partner"]);
});

test("form: the user opens the result of a job of his own, which completes it", async () => {
    mockService("action", {
        doAction(action) {
            expect.step(action.res_model);
        },
    });
    onRpc("ir.async", "complete", () => expect.step("complete"));
    const jobId = startJob("Export");
    await mountForm(jobId);
    const result = { type: "ir.actions.act_window", res_model: "res.partner" };
    await changeJob(jobId, "succeeded", { payload: { result } });
    await advanceTime(1000);
    await contains(".o_ir_async_payload .o_ir_async_open").click();
    await nextMessages();
    expect.verifySteps(["res.partner", "complete"]);
});

test("form: no result", async () => {
    await mountForm(createJob({ state: "done" }));
    expect(".o_ir_async_payload").toHaveText("There is no result.");
});

test("form: follows its job", async () => {
    const jobId = startJob("Export");
    await mountForm(jobId);
    await changeJob(jobId, "succeeded", { payload: { result: 42 } });
    await advanceTime(1000);
    await animationFrame();
    expect(".o_ir_async_payload pre").toHaveText("42");
});
