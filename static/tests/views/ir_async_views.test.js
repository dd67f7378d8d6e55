import { localization } from "@web/core/l10n/localization";
import { REFRESH_DELAY } from "@ir_async/views/live_view";
import {
    advanceTime,
    animationFrame,
    beforeEach,
    describe,
    expect,
    queryAllTexts,
    queryFirst,
    test,
} from "@odoo/hoot";
import {
    MockServer,
    contains,
    getMockEnv,
    makeMockServer,
    mockService,
    mountView,
    onRpc,
    patchWithCleanup,
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

/** Have the form look again, as a message of the bus would. */
async function reloadForm(jobId) {
    getMockEnv().bus.trigger("async_job", { id: jobId });
    await advanceTime(1000);
    await animationFrame();
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

test("list: durations of groups and totals are formatted", async () => {
    createJob({ state: "done", duration: 3725 });
    createJob({ state: "created" });
    await mountView({
        type: "list",
        resModel: "ir.async",
        arch: LIST.replace('name="duration"', 'name="duration" avg="Average"'),
        groupBy: ["state"],
    });
    expect(queryAllTexts(".o_group_header .o_list_number")).toEqual(["", "1:02:05"]);
});

test("pivot and graph: durations are formatted", async () => {
    createJob({ state: "done", duration: 62 });
    await mountView({
        type: "pivot",
        resModel: "ir.async",
        arch: `
            <pivot>
                <field name="state" type="row"/>
                <field name="duration" type="measure" widget="ir_async_duration"/>
            </pivot>`,
    });
    expect(queryAllTexts(".o_pivot_cell_value")).toEqual(["1:02", "1:02"]);
});

test("list: the duration stands still for a job that is tried again later", async () => {
    createJob({ state: "created", duration: 0 });
    await mountList();
    expect(".o_data_cell[name=duration]").toHaveText("");
    await advanceTime(3000);
    await animationFrame();
    expect(".o_data_cell[name=duration]").toHaveText("");
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

for (const [type, arch, row] of [
    ["list", LIST.replace("<list", '<list sample="1"'), ".o_data_row"],
    [
        "kanban",
        `<kanban js_class="ir_async_kanban" sample="1">
            <templates><t t-name="card"><field name="name"/></t></templates>
        </kanban>`,
        ".o_kanban_record:not(.o_kanban_ghost)",
    ],
]) {
    test(`${type}: an empty one becomes a list when the first job comes`, async () => {
        await mountView({
            type,
            resModel: "ir.async",
            arch,
            noContentHelp: "You have no background jobs yet",
        });
        expect(".o_view_nocontent").toHaveText("You have no background jobs yet");
        await advanceTime(REFRESH_DELAY);
        await animationFrame();
        expect(".o_view_sample_data").toHaveCount(1);
        createJob({ name: "First", state: "created" });
        await advanceTime(REFRESH_DELAY);
        await animationFrame();
        expect(".o_view_nocontent").toHaveCount(0);
        expect(".o_view_sample_data").toHaveCount(0);
        expect(queryAllTexts(row).join()).toMatch(/First/);
    });
}

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

test("form: a number and a text", async () => {
    const jobId = createJob({ state: "succeeded", payload: { result: {} } });
    await mountForm(jobId);
    patchWithCleanup(localization, { thousandsSep: ".", decimalPoint: ",", grouping: [3, 0] });
    for (const [result, text] of [
        [1234567, "1.234.567"],
        [1234.5, "1.234,5"],
        [0.000001, "0,000001"],
        [1e-9, "1e-9"],
        [0, "0"],
        ["two\nlines", "two\nlines"],
        [true, "true"],
        [[1234], "[\n    1234\n]"],
    ]) {
        MockServer.env["ir.async"].write([jobId], { payload: { result } });
        await reloadForm(jobId);
        expect(queryFirst(".o_ir_async_payload pre").textContent).toBe(text);
    }
});

test("form: a warning beside a result that could not be kept", async () => {
    const payload = { result: null, warning: "The result cannot be stored." };
    await mountForm(createJob({ state: "done", payload }));
    expect(".o_ir_async_payload .alert").toHaveText("The result cannot be stored.");
});

test("form: no result, or none yet", async () => {
    const texts = {
        waiting: "The job has not run yet. Its result will be shown here.",
        created: "The job has not run yet. Its result will be shown here.",
        processing: "The job is running. Its result will be shown here.",
        done: "There is no result.",
        cancelled: "There is no result.",
    };
    const jobId = createJob({ state: "waiting" });
    await mountForm(jobId);
    for (const [state, text] of Object.entries(texts)) {
        MockServer.env["ir.async"].write([jobId], { state });
        await reloadForm(jobId);
        expect(".o_ir_async_payload").toHaveText(text);
    }
});

test("kanban: follows the jobs", async () => {
    const jobId = startJob("Export");
    await mountView({
        type: "kanban",
        resModel: "ir.async",
        arch: `
            <kanban js_class="ir_async_kanban">
                <templates>
                    <t t-name="card"><field name="name"/> <field name="state"/></t>
                </templates>
            </kanban>`,
    });
    expect(".o_kanban_record:not(.o_kanban_ghost)").toHaveText(/Export\s*Queued/);
    await changeJob(jobId, "processing");
    await advanceTime(1000);
    await animationFrame();
    expect(".o_kanban_record:not(.o_kanban_ghost)").toHaveText(/Export\s*Running/);
});

test("list: does not disturb who edits a row", async () => {
    onRpc("ir.async", "web_search_read", () => expect.step("read"));
    createJob({ state: "done" });
    await mountView({
        type: "list",
        resModel: "ir.async",
        arch: `<list js_class="ir_async_list" editable="bottom"><field name="name"/></list>`,
    });
    expect.verifySteps(["read"]);
    await contains(".o_data_cell[name=name]").click();
    await advanceTime(REFRESH_DELAY);
    expect.verifySteps([]);
});

test("form: follows its job", async () => {
    const jobId = startJob("Export");
    await mountForm(jobId);
    await changeJob(jobId, "succeeded", { payload: { result: 42 } });
    await advanceTime(1000);
    await animationFrame();
    expect(".o_ir_async_payload pre").toHaveText("42");
});
