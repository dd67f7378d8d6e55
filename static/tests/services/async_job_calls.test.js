// Calls of methods that start jobs.
import { Deferred, advanceTime, describe, expect, test, waitUntil } from "@odoo/hoot";
import { MockServer, getService } from "@web/../tests/web_test_helpers";
import {
    callExport,
    defineIrAsyncModels,
    makeAsyncJobEnv,
    mockExport,
    mockNotifications,
    nextMessages,
    startJob,
} from "../ir_async_test_helpers";

describe.current.tags("headless");
defineIrAsyncModels();

test("rejects when the method answers no job", async () => {
    mockExport(() => ({ jobId: 3 }));
    await makeAsyncJobEnv();
    const outcome = callExport();
    await nextMessages();
    expect(outcome.error.message).toInclude("res.partner.start_export()");
    expect(outcome.error.message).toInclude("asyncJobId");
    expect(outcome.error.message).toInclude('{"jobId":3}');
});

test("rejects what cannot be the id of a job", async () => {
    let asyncJobId;
    mockExport(() => ({ asyncJobId }));
    await makeAsyncJobEnv();
    for (asyncJobId of [0, -1, 1.5, "5", 2 ** 31, 2 ** 53]) {
        const outcome = callExport();
        await nextMessages();
        expect(outcome.error?.message).toInclude(`{"asyncJobId":${JSON.stringify(asyncJobId)}}`);
        expect(getService("async_job").watchers.size).toBe(0);
    }
});

test("a toast waits for the answer of a call: its job may be the awaited one", async () => {
    const toasts = mockNotifications();
    const httpAnswer = new Deferred();
    mockExport(async () => {
        const asyncJobId = startJob("Export");
        MockServer.env["ir.async"]._change(asyncJobId, { state: "done" });
        await httpAnswer;
        return { asyncJobId };
    });
    await makeAsyncJobEnv();
    const outcome = callExport({});
    const { jobs } = getService("async_job");
    await waitUntil(() => jobs[1]?.state === "done", { timeout: 3000 });
    await advanceTime(1000);
    expect(toasts).toHaveLength(0);
    httpAnswer.resolve();
    await nextMessages();
    expect(outcome.job.inBackground).toBe(false);
    await advanceTime(2000);
    expect(toasts).toHaveLength(0);
});
