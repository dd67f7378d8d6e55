// The promises of awaited jobs.
import { POLL_DELAY } from "@ir_async/services/async_job_sync";
import { Deferred, advanceTime, describe, expect, test, waitUntil } from "@odoo/hoot";
import { MockServer, getService, onRpc } from "@web/../tests/web_test_helpers";
import { RPCError } from "@web/core/network/rpc";
import {
    callExport,
    changeJob,
    changeSilently,
    cutWebsocket,
    defineIrAsyncModels,
    makeAsyncJobEnv,
    makeErrorPayload,
    mockExport,
    nextMessages,
    sendMessage,
    startJob,
} from "../ir_async_test_helpers";

describe.current.tags("headless");
defineIrAsyncModels();

describe("the end of a job", () => {
    test("the job ends before the HTTP answer", async () => {
        const httpAnswer = new Deferred();
        mockExport(async () => {
            const asyncJobId = startJob(false);
            const IrAsync = MockServer.env["ir.async"];
            IrAsync._change(asyncJobId, { state: "processing" });
            IrAsync._change(asyncJobId, { state: "succeeded", payload: { result: 42 } });
            await httpAnswer;
            return { asyncJobId };
        });
        await makeAsyncJobEnv();
        const outcome = callExport();
        const { jobs } = getService("async_job");
        await waitUntil(() => jobs[1]?.state === "succeeded", { timeout: 3000 });
        expect(outcome.job).toBe(null);
        httpAnswer.resolve();
        await nextMessages();
        expect(outcome.job.payload).toEqual({ result: 42 });
    });

    test("a job that is done has no result", async () => {
        mockExport();
        onRpc("ir.async", "read", () => expect.step("read"));
        await makeAsyncJobEnv();
        const outcome = callExport();
        await nextMessages();
        await changeJob(1, "done");
        expect(outcome.job).toMatchObject({ id: 1, name: "Export", state: "done", payload: null });
        expect.verifySteps([]);
    });

    test("a payload too large for the bus is read", async () => {
        mockExport();
        await makeAsyncJobEnv();
        const outcome = callExport();
        await nextMessages();
        const result = "x".repeat(100_000);
        changeSilently(1, { state: "succeeded", payload: { result } });
        await sendMessage({ id: 1, name: "Export", state: "succeeded", revision: 2 });
        await nextMessages();
        expect(outcome.job.payload).toEqual({ result });
    });

    test("rejects when the job is deleted", async () => {
        mockExport();
        await makeAsyncJobEnv();
        await cutWebsocket();
        const outcome = callExport();
        await nextMessages();
        MockServer.env["ir.async"].unlink([1]);
        await advanceTime(POLL_DELAY);
        await nextMessages();
        expect(outcome.error.message).toBe("Job 1 does not exist (any more).");
        expect(getService("async_job").jobs[1]).toBe(undefined);
    });

    test("two may wait for the same job", async () => {
        let asyncJobId;
        mockExport(() => ({ asyncJobId: (asyncJobId ??= startJob("Export")) }));
        await makeAsyncJobEnv();
        const first = callExport();
        const second = callExport();
        await nextMessages();
        await changeJob(asyncJobId, "done");
        expect(first.job.id).toBe(asyncJobId);
        expect(second.job.id).toBe(asyncJobId);
    });
});

describe("a job that is run again by the very call", () => {
    async function failThenRetry() {
        await makeAsyncJobEnv();
        const jobId = startJob("Export");
        await changeJob(jobId, "processing");
        await changeJob(jobId, "failed", { payload: makeErrorPayload() });
        mockExport(() => {
            changeSilently(jobId, { state: "created", payload: false }); // the bus is slow
            return { asyncJobId: jobId };
        });
        const outcome = callExport();
        await nextMessages();
        await nextMessages();
        expect(outcome.error).toBe(null);
        return { jobId, outcome };
    }

    test("does not settle with the old failure", async () => {
        const { jobId, outcome } = await failThenRetry();
        await changeJob(jobId, "succeeded", { payload: { result: 42 } });
        expect(outcome.error).toBe(null);
        expect(outcome.job.payload).toEqual({ result: 42 });
    });

    test("settles with the new failure", async () => {
        const { jobId, outcome } = await failThenRetry();
        await changeJob(jobId, "failed", { payload: makeErrorPayload("Again") });
        expect(outcome.error.data.message).toBe("Again");
    });

    test("unless the call found it as it was", async () => {
        await makeAsyncJobEnv();
        const jobId = startJob("Export");
        await changeJob(jobId, "succeeded", { payload: { result: 42 } });
        mockExport(() => ({ asyncJobId: jobId }));
        const outcome = callExport();
        await nextMessages();
        await nextMessages();
        expect(outcome.job.payload).toEqual({ result: 42 });
    });
});

describe("a payload that is gone", () => {
    test("the promise rejects: the error was vacuumed", async () => {
        mockExport();
        await makeAsyncJobEnv();
        const outcome = callExport();
        await nextMessages();
        changeSilently(1, { state: "failed", payload: false });
        await sendMessage({ id: 1, name: "Export", state: "failed", revision: 2 });
        await nextMessages();
        expect(outcome.error).toBeInstanceOf(RPCError);
        expect(outcome.error.data.message).toBe("The error of this job is no longer available.");
    });

    test("the promise rejects: the job was vacuumed", async () => {
        mockExport();
        await makeAsyncJobEnv();
        const outcome = callExport();
        await nextMessages();
        MockServer.env["ir.async"].unlink([1]);
        await sendMessage({ id: 1, name: "Export", state: "failed", revision: 2 });
        await nextMessages();
        expect(outcome.error.message).toBe("Job 1 does not exist (any more).");
    });
});
