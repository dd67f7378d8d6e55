// What follows from news about jobs.
import { advanceTime, describe, expect, test } from "@odoo/hoot";
import { getService } from "@web/../tests/web_test_helpers";
import {
    callExport,
    changeJob,
    defineIrAsyncModels,
    makeAsyncJobEnv,
    makeErrorPayload,
    mockExport,
    mockNotifications,
    nextMessages,
    startJob,
    startSilently,
} from "../ir_async_test_helpers";

describe.current.tags("headless");
defineIrAsyncModels();

test("every change triggers `async_job` on the bus of the environment", async () => {
    const env = await makeAsyncJobEnv();
    env.bus.addEventListener("async_job", ({ detail }) =>
        expect.step(`${detail.name} ${detail.state} ${JSON.stringify(detail.payload)}`)
    );
    const jobId = startJob("Export");
    await changeJob(jobId, "processing");
    await changeJob(jobId, "succeeded", { payload: { result: 42 } });
    await changeJob(jobId, "done");
    expect.verifySteps([
        "Export created null",
        "Export processing null",
        'Export succeeded {"result":42}',
        'Export done {"result":42}',
    ]);
});

describe("toasts", () => {
    test("a job that failed while the page was loaded has a toast", async () => {
        const toasts = mockNotifications();
        const env = await makeAsyncJobEnv({ ready: false });
        const values = { state: "failed", revision: 3, payload: makeErrorPayload() };
        startSilently("Long ago", { ...values, ended_ago: 86400 * 365 });
        startSilently("Just now", { ...values, ended_ago: 0.01 });
        env.bus.trigger("WEB_CLIENT_READY");
        await nextMessages();
        await advanceTime(500);
        expect(toasts.map(({ title }) => title)).toEqual(["Just now"]);
    });

    test("what is read says the end of a job that nobody had heard of", async () => {
        const toasts = mockNotifications();
        await makeAsyncJobEnv();
        const values = { state: "failed", revision: 3, payload: makeErrorPayload() };
        startSilently("Just now", { ...values, ended_ago: 0.01 });
        getService("bus_service").trigger("BUS:RECONNECT");
        await nextMessages();
        await advanceTime(500);
        expect(toasts.map(({ title }) => title)).toEqual(["Just now"]);
    });

    test("are for jobs that nobody waits for here", async () => {
        const toasts = mockNotifications();
        mockExport();
        await makeAsyncJobEnv();
        callExport();
        await nextMessages();
        await changeJob(1, "done");
        await advanceTime(2000);
        expect(toasts).toHaveLength(0);
    });
});
