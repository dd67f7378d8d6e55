// Messages applied by revision, and jobs that are forgotten.
import { SAFETY_POLL_DELAY } from "@ir_async/services/async_job_sync";
import { advanceTime, describe, expect, test } from "@odoo/hoot";
import { MockServer, getService } from "@web/../tests/web_test_helpers";
import {
    changeJob,
    defineIrAsyncModels,
    makeAsyncJobEnv,
    makeErrorPayload,
    mockNotifications,
    nextMessages,
    sendMessage,
    startJob,
} from "../ir_async_test_helpers";

describe.current.tags("headless");
defineIrAsyncModels();

test("out of order or twice, they never move a job backwards", async () => {
    const toasts = mockNotifications();
    const env = await makeAsyncJobEnv();
    env.bus.addEventListener("async_job", ({ detail }) => expect.step(detail.state));
    await sendMessage({ id: 7, name: "Export", state: "processing", revision: 2 });
    await sendMessage({ id: 7, name: "Export", state: "done", revision: 3 });
    await sendMessage({ id: 7, name: "Export", state: "processing", revision: 2 });
    await sendMessage({ id: 7, name: "Export", state: "created", revision: 1 });
    await sendMessage({ id: 7, name: "Export", state: "done", revision: 3 });
    await advanceTime(2000);
    await sendMessage({ id: 7, name: "Export", state: "done", revision: 3 });
    await advanceTime(2000);
    expect(getService("async_job").jobs[7].state).toBe("done");
    expect(toasts).toHaveLength(1);
    expect.verifySteps(["processing", "done", "done", "done"]);
});

test("a retry does move a job backwards", async () => {
    await makeAsyncJobEnv();
    const jobId = startJob("Export");
    await changeJob(jobId, "failed", { payload: makeErrorPayload() });
    await getService("async_job").retry(jobId);
    await nextMessages();
    const { jobs } = getService("async_job");
    expect(jobs[jobId].state).toBe("created");
    expect(jobs[jobId].payload).toBe(null);
    await sendMessage({ id: jobId, name: "Export", state: "failed", revision: 2 });
    expect(jobs[jobId].state).toBe("created");
});

test("progress belongs to the run it was reported in", async () => {
    await makeAsyncJobEnv();
    const { jobs } = getService("async_job");
    const message = { id: 7, name: "Export", state: "processing", revision: 2 };
    const progress = { done: 3, total: 10, message: "3 rows" };
    await sendMessage(message);
    await sendMessage({ ...message, progress });
    await sendMessage(message); // the first one again
    expect(jobs[7].progress).toEqual(progress);
    await sendMessage({ ...message, revision: 4 });
    expect(jobs[7].progress).toBe(null);
});

test("a dismissed job leaves, and a late message does not bring it back", async () => {
    await makeAsyncJobEnv();
    const { jobs } = getService("async_job");
    await sendMessage({ id: 7, name: "Export", state: "done", revision: 3 });
    await sendMessage({ id: 7, name: "Export", state: "done", revision: 4, dismissed: true });
    expect(jobs[7]).toBe(undefined);
    await sendMessage({ id: 7, name: "Export", state: "done", revision: 3 });
    expect(jobs[7]).toBe(undefined);
    await sendMessage({ id: 7, name: "Export", state: "created", revision: 5 });
    expect(jobs[7].state).toBe("created"); // but a retry does
});

test("jobs without a name do not pile up", async () => {
    const toasts = mockNotifications();
    await makeAsyncJobEnv();
    const { jobs } = getService("async_job");
    await sendMessage({ id: 7, name: false, state: "done", revision: 3 });
    expect(jobs[7].state).toBe("done");
    await advanceTime(SAFETY_POLL_DELAY + 1000);
    await sendMessage({ id: 8, name: false, state: "created", revision: 1 });
    expect(Object.keys(jobs)).toEqual(["8"]);
    expect(toasts).toHaveLength(0);
});

test("the elapsed time never jumps back", async () => {
    await makeAsyncJobEnv();
    const jobId = startJob("Export");
    await changeJob(jobId, "processing");
    const { jobs } = getService("async_job");
    const { startedAt } = jobs[jobId];
    await advanceTime(10000);
    const refresh = async (elapsed) => {
        MockServer.env["ir.async"].write([jobId], { elapsed });
        getService("bus_service").trigger("BUS:RECONNECT");
        await nextMessages();
    };
    await refresh(8); // the answer took its time
    expect(jobs[jobId].startedAt).toBe(startedAt);
    await refresh(20);
    expect(jobs[jobId].startedAt).toBeLessThan(startedAt - 5000);
    await changeJob(jobId, "created");
    expect(jobs[jobId].startedAt).toBe(undefined);
    await changeJob(jobId, "processing");
    expect(jobs[jobId].startedAt).toBeGreaterThan(startedAt + 5000);
});
