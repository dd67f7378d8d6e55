// Errors of jobs, and their dialogs.
import { animationFrame, describe, expect, queryAllTexts, test, waitFor } from "@odoo/hoot";
import { contains, getService, mountWithCleanup, onRpc } from "@web/../tests/web_test_helpers";
import { MainComponentsContainer } from "@web/core/main_components_container";
import {
    CALL,
    changeJob,
    defineIrAsyncModels,
    makeAsyncJobEnv,
    makeErrorPayload,
    mockExport,
    nextMessages,
    startJob,
} from "../ir_async_test_helpers";

describe.current.tags("headless");
defineIrAsyncModels();

describe("errors nobody catches", () => {
    test("of a failed job: the standard dialog", async () => {
        expect.errors(1);
        mockExport();
        const env = await makeAsyncJobEnv();
        await mountWithCleanup(MainComponentsContainer, { env });
        getService("async_job").asyncRpc(CALL);
        await nextMessages();
        await changeJob(1, "failed", { payload: makeErrorPayload() });
        await waitFor(".o_error_dialog");
        expect.verifyErrors(["Odoo Server Error"]);
        expect(getService("ui").isBlocked).toBe(false);
    });

    test("of a cancelled job: nothing", async () => {
        expect.errors(1);
        mockExport();
        const env = await makeAsyncJobEnv();
        await mountWithCleanup(MainComponentsContainer, { env });
        getService("async_job").asyncRpc(CALL, { blockUI: false });
        await nextMessages();
        await changeJob(1, "cancelled");
        await animationFrame();
        expect.verifyErrors(["Job 1 (Export) was cancelled"]);
        expect(".o_dialog").toHaveCount(0);
    });
});

describe("what dialogs say", () => {
    test("an error names its job, and can be tried again", async () => {
        expect.errors(1);
        onRpc("ir.async", "retry", ({ args }) => expect.step(`retry ${args[0]}`));
        const env = await makeAsyncJobEnv();
        await mountWithCleanup(MainComponentsContainer, { env });
        const jobId = startJob("Export");
        await changeJob(jobId, "failed", { payload: makeErrorPayload() });
        await getService("async_job").open(jobId);
        await waitFor(".o_error_dialog");
        expect.verifyErrors(["Odoo Server Error"]);
        expect(".o_error_dialog .o_ir_async_error_job").toHaveText("Background job: Export");
        expect(queryAllTexts(".o_error_dialog footer button:visible")).toEqual(["Close", "Retry"]);
        await contains(".o_error_dialog .o_ir_async_error_retry").click();
        await nextMessages();
        expect.verifySteps([`retry ${jobId}`]);
        expect(".o_error_dialog").toHaveCount(0);
    });

    test("so does an error that the user caused", async () => {
        expect.errors(1);
        const env = await makeAsyncJobEnv();
        await mountWithCleanup(MainComponentsContainer, { env });
        const payload = makeErrorPayload("Not like that");
        payload.error.data.name = "odoo.exceptions.UserError";
        const jobId = startJob("Export");
        await changeJob(jobId, "failed", { payload });
        await getService("async_job").open(jobId);
        await waitFor(".o_error_dialog");
        expect.verifyErrors(["Odoo Server Error"]);
        expect(".modal-title").toHaveText("Invalid Operation");
        expect(".o_error_dialog").toHaveText(/Background job: Export/);
        expect(".o_error_dialog").toHaveText(/Not like that/);
        expect(".o_error_dialog .o_ir_async_error_retry").toHaveCount(1);
    });
});
