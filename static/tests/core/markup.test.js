// Whatever a job is called, reports or returns, the page shows it as text.
import { advanceTime, animationFrame, describe, expect, queryAll, test, waitFor } from "@odoo/hoot";
import {
    MockServer,
    contains,
    getService,
    makeMockServer,
    mountView,
    mountWithCleanup,
} from "@web/../tests/web_test_helpers";
import { MainComponentsContainer } from "@web/core/main_components_container";
import { AsyncMenu } from "@ir_async/async_menu/async_menu";
import {
    callExport,
    changeJob,
    defineIrAsyncModels,
    makeAsyncJobEnv,
    makeErrorPayload,
    mockExport,
    nextMessages,
    startEnded,
    startJob,
} from "../ir_async_test_helpers";

describe.current.tags("desktop");
defineIrAsyncModels();

const MARKUP = `<img class="o_markup" src="x" onerror="window.isMarkup = true"><script class="o_markup">window.isMarkup = true</script>`;

/** Check that an element shows the text, and that none of it has become an element. */
function expectText(selector) {
    expect(queryAll(selector).some((element) => element.textContent.includes(MARKUP))).toBe(true, {
        message: selector,
    });
    expect(".o_markup").toHaveCount(0);
    expect(window.isMarkup).toBe(undefined);
}

test("in the top bar: name, progress, error", async () => {
    const env = await makeAsyncJobEnv();
    await mountWithCleanup(AsyncMenu, { env });
    await changeJob(startJob(MARKUP), "processing", {
        progress: { done: 1, total: 2, message: MARKUP },
    });
    await startEnded("Failed", "failed", makeErrorPayload(MARKUP));
    await contains(".o_ir_async_systray").click();
    expectText(".o_ir_async_job_name");
    expectText(".o_ir_async_progress_message");
    expectText(".o_ir_async_job_error");
});

test("on the blocked page, in toasts, and in the dialogs of results and errors", async () => {
    expect.errors(1);
    mockExport(() => ({ asyncJobId: startJob(MARKUP) }));
    const env = await makeAsyncJobEnv();
    await mountWithCleanup(MainComponentsContainer, { env });
    callExport({});
    await nextMessages();
    await advanceTime(500); // after this time, the page is blocked
    await changeJob(1, "processing", { progress: { done: 1, total: 2, message: MARKUP } });
    expectText(".o_ir_async_block_name");
    expectText(".o_ir_async_block .o_ir_async_progress_message");
    await contains(".o_ir_async_continue").click();
    await changeJob(1, "succeeded", { payload: { result: { text: MARKUP } } });
    await animationFrame();
    expectText(".o_notification");
    await getService("async_job").open(1);
    await waitFor(".o_ir_async_result_text", { timeout: 3000 });
    expect(".o_ir_async_result_text").toHaveText(/<img class/);
    expect(".o_markup").toHaveCount(0);
    const failedId = await startEnded(MARKUP, "failed", makeErrorPayload(MARKUP));
    await getService("async_job").open(failedId);
    await waitFor(".o_error_dialog", { timeout: 3000 });
    expect.verifyErrors([/./]);
    expectText(".o_error_dialog .o_ir_async_error_job");
});

test("in the views: name, error, result", async () => {
    await makeMockServer();
    const error = makeErrorPayload(MARKUP);
    const results = [error, { result: MARKUP, warning: MARKUP }];
    const ids = results.map(
        (payload) =>
            MockServer.env["ir.async"].create([{ name: MARKUP, state: "failed", payload }])[0]
    );
    await mountView({
        type: "list",
        resModel: "ir.async",
        arch: `<list js_class="ir_async_list"><field name="name"/></list>`,
    });
    expectText(".o_data_row");
    const arch = `
        <form js_class="ir_async_form">
            <field name="name"/>
            <field name="payload" widget="ir_async_payload"/>
        </form>`;
    for (const [resId, selector] of [
        [ids[0], ".o_ir_async_payload_message"],
        [ids[0], ".o_ir_async_traceback"],
        [ids[1], ".o_ir_async_payload .alert"],
    ]) {
        await mountView({ type: "form", resModel: "ir.async", resId, arch });
        expectText(selector);
    }
});
