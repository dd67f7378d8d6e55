// The service as others use it: wait for a job, or have its result opened.
import { AsyncJobCancelledError } from "@ir_async/core/async_job_error";
import { BLOCK_UI_DURATION } from "@ir_async/services/async_job_waits";
import { advanceTime, describe, expect, test } from "@odoo/hoot";
import {
    MockServer,
    getService,
    mockService,
    mountWithCleanup,
    onRpc,
} from "@web/../tests/web_test_helpers";
import { MainComponentsContainer } from "@web/core/main_components_container";
import { RPCError } from "@web/core/network/rpc";
import {
    ACTION,
    CALL,
    CLOSE,
    NOTIFICATION,
    callExport,
    changeJob,
    defineIrAsyncModels,
    makeAsyncJobEnv,
    makeErrorPayload,
    mockExport,
    mockNotifications,
    nextMessages,
    startJob,
} from "../ir_async_test_helpers";

describe.current.tags("headless");
defineIrAsyncModels();

describe("asyncRpc", () => {
    test("resolves with the job", async () => {
        mockExport();
        await makeAsyncJobEnv();
        const outcome = callExport();
        await nextMessages();
        const [jobId] = Object.keys(getService("async_job").jobs).map(Number);
        await changeJob(jobId, "processing");
        expect(outcome.job).toBe(null);
        await changeJob(jobId, "succeeded", { payload: { result: ACTION } });
        expect(outcome.job).toEqual({
            id: jobId,
            name: "Export",
            state: "succeeded",
            payload: { result: ACTION },
            inBackground: true, // the page is not blocked
        });
        expect(MockServer.env["ir.async"].browse(jobId)[0].state).toBe("succeeded", {
            message: "it is up to the caller to complete it",
        });
    });

    test("rejects with the error of the job", async () => {
        mockExport();
        await makeAsyncJobEnv();
        const outcome = callExport();
        await nextMessages();
        await changeJob(1, "failed", { payload: makeErrorPayload() });
        expect(outcome.error).toBeInstanceOf(RPCError);
        expect(outcome.error.exceptionName).toBe("builtins.ZeroDivisionError");
        expect(outcome.error.data.debug).toInclude("the server's traceback");
    });

    test("rejects when the job is cancelled", async () => {
        mockExport();
        await makeAsyncJobEnv();
        const outcome = callExport();
        await nextMessages();
        await getService("async_job").cancel(1);
        await nextMessages();
        expect(outcome.error).toBeInstanceOf(AsyncJobCancelledError);
    });
});

describe("run", () => {
    function mockAction() {
        mockService("action", {
            doAction(action) {
                expect.step(`open ${action.res_model}`);
            },
        });
    }

    function runExport(options = {}) {
        return callExport(options, "run");
    }

    test("opens the result while the user is kept waiting, and completes it", async () => {
        mockAction();
        mockExport();
        const toasts = mockNotifications();
        onRpc("ir.async", "complete", () => expect.step("complete"));
        await makeAsyncJobEnv();
        const outcome = runExport();
        await nextMessages();
        await changeJob(1, "succeeded", { payload: { result: ACTION } });
        await nextMessages();
        expect.verifySteps(["open res.partner", "complete"]);
        expect(outcome.job.inBackground).toBe(false);
        expect(outcome.job.payload.result).toEqual(ACTION);
        await advanceTime(2000);
        expect(toasts).toHaveLength(0);
    });

    test("offers a late result, and leaves the page alone", async () => {
        mockAction();
        mockExport();
        const toasts = mockNotifications();
        onRpc("ir.async", "complete", () => expect.step("complete"));
        await makeAsyncJobEnv();
        const outcome = runExport();
        await nextMessages();
        await advanceTime(BLOCK_UI_DURATION);
        await changeJob(1, "succeeded", { payload: { result: ACTION } });
        await advanceTime(500);
        expect.verifySteps([]);
        expect(outcome.job.inBackground).toBe(true);
        expect(getService("async_job").jobs[1].state).toBe("succeeded");
        expect(toasts.map(({ message }) => message)).toEqual([
            "This is taking longer than expected. You can keep working; the result will appear under Background jobs.",
            "The result is ready.",
        ]);
        await toasts[1].buttons[0].onClick();
        expect.verifySteps(["open res.partner", "complete"]);
    });

    test("offers the result of a job without a name, too", async () => {
        mockAction();
        mockExport(() => ({ asyncJobId: startJob(false) }));
        const toasts = mockNotifications();
        await makeAsyncJobEnv();
        runExport();
        await nextMessages();
        await advanceTime(BLOCK_UI_DURATION);
        await changeJob(1, "succeeded", { payload: { result: ACTION } });
        await advanceTime(500);
        expect(toasts.at(-1).buttons.map(({ name }) => name)).toEqual(["Open"]);
        expect.verifySteps([]);
    });

    test("offers the result when the page is not blocked", async () => {
        mockAction();
        mockExport();
        const toasts = mockNotifications();
        await makeAsyncJobEnv();
        runExport({ blockUI: false });
        await nextMessages();
        await changeJob(1, "succeeded", { payload: { result: ACTION } });
        await advanceTime(500);
        expect.verifySteps([]);
        expect(toasts.map(({ message }) => message)).toEqual(["The result is ready."]);
    });

    test("closes the dialog of the user who is kept waiting", async () => {
        mockService("action", {
            doAction({ type, params }) {
                expect.step(params?.next.type || type);
            },
        });
        mockExport();
        await makeAsyncJobEnv();
        const next = { ...NOTIFICATION, params: { message: "x", next: CLOSE } };
        for (const [i, result] of [CLOSE, next].entries()) {
            runExport();
            await nextMessages();
            await changeJob(i + 1, "succeeded", { payload: { result } });
            await nextMessages();
            expect.verifySteps([CLOSE.type]);
            expect(getService("async_job").jobs[i + 1].state).toBe("done");
        }
    });

    test("hands plain data to the caller", async () => {
        mockAction();
        mockExport();
        await makeAsyncJobEnv();
        const outcome = runExport();
        await nextMessages();
        await changeJob(1, "succeeded", { payload: { result: 42 } });
        await nextMessages();
        expect.verifySteps([]);
        expect(outcome.job.payload.result).toBe(42);
        expect(getService("async_job").jobs[1].state).toBe("done");
    });

    test("a result that cannot be opened is not completed", async () => {
        mockService("action", {
            async doAction() {
                throw new Error("no such view");
            },
        });
        mockExport();
        await makeAsyncJobEnv();
        const outcome = runExport();
        await nextMessages();
        await changeJob(1, "succeeded", { payload: { result: ACTION } });
        await nextMessages();
        expect(outcome.error.message).toBe("no such view");
        expect(getService("async_job").jobs[1].state).toBe("succeeded");
    });

    test("a late error is offered, too: a dialog would interrupt the user", async () => {
        expect.errors(1);
        mockExport();
        const toasts = mockNotifications();
        const env = await makeAsyncJobEnv();
        await mountWithCleanup(MainComponentsContainer, { env });
        getService("async_job").run(CALL);
        await nextMessages();
        await advanceTime(BLOCK_UI_DURATION);
        await changeJob(1, "failed", { payload: makeErrorPayload() });
        await advanceTime(500);
        expect.verifyErrors(["Odoo Server Error"]);
        expect(".o_dialog").toHaveCount(0);
        expect(toasts.slice(1).map(({ message }) => message)).toEqual(["Division by zero"]);
    });
});
