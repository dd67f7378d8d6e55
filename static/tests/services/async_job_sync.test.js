// Jobs that are read: when the page is loaded, after messages were missed, for large results.
import { SAFETY_POLL_DELAY } from "@ir_async/services/async_job_sync";
import { Deferred, advanceTime, describe, expect, test, waitUntil } from "@odoo/hoot";
import { MockServer, getService, onRpc } from "@web/../tests/web_test_helpers";
import {
    ACTION,
    changeSilently,
    cutWebsocket,
    defineIrAsyncModels,
    makeAsyncJobEnv,
    mockNotifications,
    mockVisibility,
    nextMessages,
    sendMessage,
    startJob,
} from "../ir_async_test_helpers";

describe.current.tags("headless");
defineIrAsyncModels();

describe("loading", () => {
    test("nothing is done before the web client is ready", async () => {
        onRpc("lazy_session_info", () => expect.step("lazy_session_info"));
        onRpc("ir.async", "*", ({ method }) => expect.step(method));
        const env = await makeAsyncJobEnv({ ready: false });
        await advanceTime(SAFETY_POLL_DELAY);
        expect.verifySteps([]);
        env.bus.trigger("WEB_CLIENT_READY");
        await nextMessages();
        expect.verifySteps(["lazy_session_info"]);
    });

    test("the jobs of before are there, without a toast", async () => {
        const toasts = mockNotifications();
        const env = await makeAsyncJobEnv({ ready: false });
        const running = startJob("Running", { state: "processing", revision: 2 });
        const ready = startJob("Ready", {
            state: "succeeded",
            revision: 3,
            payload: { result: ACTION },
        });
        env.bus.trigger("WEB_CLIENT_READY");
        await nextMessages();
        await advanceTime(2000);
        const { jobs } = getService("async_job");
        expect(Object.keys(jobs).map(Number)).toEqual([running, ready]);
        expect(jobs[ready].payload.result).toEqual(ACTION);
        expect(getService("async_job").getJobs()).toBe(jobs);
        expect(toasts).toHaveLength(0);
    });
});

describe("missed messages", () => {
    test("are repaired when the tab wakes up", async () => {
        await makeAsyncJobEnv();
        const jobId = startJob("Export");
        await nextMessages();
        changeSilently(jobId, { state: "done" });
        mockVisibility("hidden");
        mockVisibility("visible");
        await nextMessages();
        expect(getService("async_job").jobs[jobId].state).toBe("done");
    });

    test("also those about jobs that are gone", async () => {
        await makeAsyncJobEnv();
        const gone = startJob("Gone");
        const dismissed = startJob("Dismissed");
        await nextMessages();
        const restore = await cutWebsocket();
        MockServer.env["ir.async"].unlink([gone]);
        changeSilently(dismissed, { state: "done", dismissed: true });
        const [unknown] = MockServer.env["ir.async"].create([{ name: "Unknown" }]);
        restore();
        const { jobs } = getService("async_job");
        await waitUntil(() => jobs[unknown], { timeout: 3000 });
        expect(Object.keys(jobs).map(Number)).toEqual([unknown]);
    });

    test("what the server says is old news by the time it is read", async () => {
        await makeAsyncJobEnv();
        const jobId = startJob("Export");
        await nextMessages();
        const answer = new Deferred();
        onRpc("ir.async", "get_user_jobs", async ({ parent }) => {
            const rows = parent();
            await answer;
            return rows;
        });
        getService("bus_service").trigger("BUS:RECONNECT");
        const other = startJob("Other");
        MockServer.env["ir.async"]._change(jobId, { state: "done" });
        const { jobs } = getService("async_job");
        await waitUntil(() => jobs[jobId].state === "done", { timeout: 3000 });
        answer.resolve();
        await nextMessages();
        expect(jobs[jobId].state).toBe("done");
        expect(jobs[other].state).toBe("created");
    });
});

describe("large results", () => {
    test("a large result is data, or an action", async () => {
        await makeAsyncJobEnv();
        const { jobs } = getService("async_job");
        const text = "x".repeat(70_000);
        for (const [jobId, result, resultType] of [
            [startJob("Data"), text, false],
            [startJob("Action"), { ...ACTION, context: { text } }, ACTION.type],
        ]) {
            await nextMessages();
            changeSilently(jobId, { state: "succeeded", payload: { result } });
            await sendMessage({ id: jobId, name: "Export", state: "succeeded", revision: 2 });
            await nextMessages();
            expect(jobs[jobId].payload).toBe(undefined);
            expect(jobs[jobId].resultType).toBe(resultType);
        }
    });
});
