// Jobs that are polled, as long as the session lasts.
import { POLL_DELAY, SAFETY_POLL_DELAY } from "@ir_async/services/async_job_sync";
import { advanceTime, describe, expect, test, waitUntil } from "@odoo/hoot";
import {
    MockServer,
    getService,
    makeServerError,
    mountWithCleanup,
    onRpc,
} from "@web/../tests/web_test_helpers";
import { MainComponentsContainer } from "@web/core/main_components_container";
import {
    callExport,
    changeJob,
    changeSilently,
    cutWebsocket,
    defineIrAsyncModels,
    makeAsyncJobEnv,
    mockExport,
    nextMessages,
    nextPoll,
    startJob,
} from "../ir_async_test_helpers";

describe.current.tags("headless");
defineIrAsyncModels();

test("the job ends while the websocket is cut, which comes back", async () => {
    mockExport();
    await makeAsyncJobEnv();
    const outcome = callExport();
    await nextMessages();
    const restore = await cutWebsocket();
    changeSilently(1, { state: "succeeded", payload: { result: 42 } });
    await advanceTime(50);
    expect(outcome.job).toBe(null);
    restore();
    await waitUntil(() => outcome.job, { timeout: 3000 });
    expect(outcome.job.payload).toEqual({ result: 42 });
});

test("without a websocket, the job is polled", async () => {
    mockExport();
    onRpc("ir.async", "get_user_jobs", () => expect.step("get_user_jobs"));
    await makeAsyncJobEnv();
    await cutWebsocket();
    const outcome = callExport();
    await nextMessages();
    await nextPoll();
    expect.verifySteps(["get_user_jobs"]);
    changeSilently(1, { state: "succeeded", payload: { result: 42 } });
    await nextPoll();
    await waitUntil(() => outcome.job, { timeout: 3000 });
    expect.verifySteps(["get_user_jobs"]);
    expect(outcome.job.payload).toEqual({ result: 42 });
    await advanceTime(POLL_DELAY);
    expect.verifySteps([]); // nothing to wait for
});

test("with a websocket, the job is not polled", async () => {
    mockExport();
    onRpc("ir.async", "get_user_jobs", () => expect.step("get_user_jobs"));
    await makeAsyncJobEnv();
    await waitUntil(() => getService("async_job").sync.isConnected, { timeout: 3000 });
    callExport();
    await nextMessages();
    for (let time = 2 * POLL_DELAY; time < SAFETY_POLL_DELAY; time += POLL_DELAY) {
        await nextPoll();
    }
    expect.verifySteps([]);
    for (let i = 0; i < 3; i++) {
        await nextPoll(); // once in a while, just in case
    }
    expect.verifySteps(["get_user_jobs"]);
});

test("a job of which the bus tells nothing is polled", async () => {
    mockExport(() => {
        const [asyncJobId] = MockServer.env["ir.async"].create([{ notify: false }]);
        return { asyncJobId };
    });
    await makeAsyncJobEnv();
    const outcome = callExport();
    await nextMessages();
    changeSilently(1, { state: "done" });
    await advanceTime(POLL_DELAY);
    await nextMessages();
    expect(outcome.job.state).toBe("done");
});

test("offline, the poll goes on until the network is back", async () => {
    mockExport();
    let isOffline = false;
    onRpc("ir.async", "get_user_jobs", () => {
        if (isOffline) {
            expect.step("offline");
            return new Response("", { status: 502 });
        }
    });
    await makeAsyncJobEnv();
    await cutWebsocket();
    const outcome = callExport();
    await nextMessages();
    isOffline = true;
    changeSilently(1, { state: "done" });
    await nextPoll();
    await nextPoll();
    expect.verifySteps(["offline", "offline"]);
    isOffline = false;
    await nextPoll();
    await waitUntil(() => outcome.job, { timeout: 3000 });
    expect(outcome.job.state).toBe("done");
});

test("nothing is read when all jobs are over", async () => {
    onRpc("ir.async", "get_user_jobs", () => expect.step("get_user_jobs"));
    await makeAsyncJobEnv();
    const jobId = startJob("Export");
    await changeJob(jobId, "processing");
    await changeJob(jobId, "done");
    await advanceTime(2 * POLL_DELAY);
    await nextMessages();
    expect.verifySteps([]);
});

describe("expired session", () => {
    test("polling stops silently until the user has logged in again", async () => {
        mockExport();
        let isExpired = false;
        onRpc("ir.async", "get_user_jobs", () => {
            expect.step("get_user_jobs");
            if (isExpired) {
                throw makeServerError({
                    errorName: "odoo.http.SessionExpiredException",
                    code: 100,
                });
            }
        });
        const env = await makeAsyncJobEnv();
        await mountWithCleanup(MainComponentsContainer, { env });
        await cutWebsocket();
        const outcome = callExport();
        await nextMessages();
        isExpired = true;
        changeSilently(1, { state: "done" });
        await advanceTime(POLL_DELAY);
        await nextMessages();
        expect.verifySteps(["get_user_jobs"]);
        await advanceTime(2 * SAFETY_POLL_DELAY);
        await nextMessages();
        expect.verifySteps([]);
        expect(".o_dialog").toHaveCount(0);
        expect(outcome.error).toBe(null);
        isExpired = false;
        await getService("orm").searchCount("ir.async", []); // the user works again
        await nextMessages();
        expect.verifySteps(["get_user_jobs"]);
        expect(outcome.job.state).toBe("done");
    });

    test("nor does any other trouble of the server open dialogs", async () => {
        mockExport();
        onRpc("ir.async", "get_user_jobs", () => {
            expect.step("get_user_jobs");
            throw makeServerError({ errorName: "odoo.exceptions.AccessError" });
        });
        const env = await makeAsyncJobEnv();
        await mountWithCleanup(MainComponentsContainer, { env });
        await cutWebsocket();
        callExport();
        await nextMessages();
        await advanceTime(POLL_DELAY);
        await nextMessages();
        await advanceTime(POLL_DELAY);
        await nextMessages();
        expect.verifySteps(["get_user_jobs"]); // less often
        expect(".o_dialog").toHaveCount(0);
    });
});
