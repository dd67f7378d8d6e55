// The page is blocked while the user waits for a job.
import { BLOCK_UI_DURATION } from "@ir_async/services/async_job_waits";
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
} from "../ir_async_test_helpers";

describe.current.tags("headless");
defineIrAsyncModels();

test("for 5 seconds at most, then a toast", async () => {
    mockExport();
    const toasts = mockNotifications();
    await makeAsyncJobEnv();
    const ui = getService("ui");
    const outcome = callExport({ onBackground: () => expect.step("background") });
    expect(ui.isBlocked).toBe(true);
    await nextMessages();
    await advanceTime(BLOCK_UI_DURATION - 1000);
    expect(ui.isBlocked).toBe(true);
    await advanceTime(1000);
    expect(ui.isBlocked).toBe(false);
    expect(toasts.map(({ title, type }) => [title, type])).toEqual([["Export", "info"]]);
    expect.verifySteps(["background"]);
    await changeJob(1, "done");
    expect(outcome.job.state).toBe("done");
    expect(ui.isBlocked).toBe(false);
});

test("not for a job that is tried again later", async () => {
    mockExport();
    mockNotifications();
    await makeAsyncJobEnv();
    callExport({});
    await nextMessages();
    expect(getService("ui").isBlocked).toBe(true);
    await changeJob(1, "processing");
    await changeJob(1, "created", { payload: makeErrorPayload() });
    expect(getService("ui").isBlocked).toBe(false);
});

test("not longer than the job", async () => {
    mockExport();
    const toasts = mockNotifications();
    await makeAsyncJobEnv();
    const outcome = callExport({});
    await nextMessages();
    await changeJob(1, "done");
    expect(outcome.job.state).toBe("done");
    expect(getService("ui").isBlocked).toBe(false);
    await advanceTime(BLOCK_UI_DURATION);
    expect(toasts).toHaveLength(0);
});

test("not when the call fails", async () => {
    mockExport(() => ({}));
    await makeAsyncJobEnv();
    const outcome = callExport({});
    await nextMessages();
    expect(outcome.error).not.toBe(null);
    expect(getService("ui").isBlocked).toBe(false);
});

test("not with blockUI: false", async () => {
    mockExport();
    const toasts = mockNotifications();
    await makeAsyncJobEnv();
    callExport({ blockUI: false });
    expect(getService("ui").isBlocked).toBe(false);
    await nextMessages();
    await advanceTime(BLOCK_UI_DURATION);
    expect(toasts).toHaveLength(0);
});
