import { lockWebsocketConnect } from "@bus/../tests/bus_test_helpers";
import { WEBSOCKET_CLOSE_CODES } from "@bus/workers/websocket_worker";
import { AsyncJobCancelledError } from "@ir_async/core/async_job_error";
import { ForegroundTab } from "@ir_async/core/foreground_tab";
import { POLL_DELAY, SAFETY_POLL_DELAY } from "@ir_async/services/async_job_sync";
import { BLOCK_UI_DURATION } from "@ir_async/services/async_job_waits";
import {
    Deferred,
    advanceTime,
    after,
    animationFrame,
    beforeEach,
    describe,
    expect,
    press,
    queryAllTexts,
    test,
    waitFor,
    waitUntil,
} from "@odoo/hoot";
import { Component, onRendered, useState, xml } from "@odoo/owl";
import {
    MockServer,
    contains,
    getService,
    makeServerError,
    mockService,
    mountWithCleanup,
    onRpc,
    patchWithCleanup,
} from "@web/../tests/web_test_helpers";
import { browser } from "@web/core/browser/browser";
import { MainComponentsContainer } from "@web/core/main_components_container";
import { downloadFile } from "@web/core/network/download";
import { RPCError } from "@web/core/network/rpc";
import { useService } from "@web/core/utils/hooks";
import {
    changeJob,
    changeSilently,
    defineIrAsyncModels,
    makeAsyncJobEnv,
    makeErrorPayload,
    mockForegroundTab,
    mockNotifications,
    mockVisibility,
    nextMessages,
    restoreForegroundTab,
    sendMessage,
    startJob,
} from "../ir_async_test_helpers";

describe.current.tags("headless");
defineIrAsyncModels();

const CALL = { model: "res.partner", method: "start_export" };
const CLOSE = { type: "ir.actions.act_window_close" };
const NOTIFICATION = {
    type: "ir.actions.client",
    tag: "display_notification",
    params: { message: "x" },
};
const ACTION = { type: "ir.actions.act_window", res_model: "res.partner", view_mode: "list" };

/** The method under test of the server. */
function mockExport(answer = () => ({ asyncJobId: startJob("Export") })) {
    onRpc("res.partner", "start_export", answer);
}

/** Call it, and tell what becomes of the promise. */
function callExport(options = { blockUI: false }) {
    const outcome = { job: null, error: null };
    getService("async_job")
        .asyncRpc(CALL, options)
        .then(
            (job) => (outcome.job = job),
            (error) => (outcome.error = error)
        );
    return outcome;
}

/** The jobs are polled, if there is something to wait for. */
async function nextPoll() {
    const { sync } = getService("async_job");
    const timeout = sync.pollTimeout;
    await advanceTime(POLL_DELAY);
    await waitUntil(() => sync.pollTimeout !== timeout, { timeout: 3000 });
}

/** A job of which the bus says nothing. */
function startSilently(name, values) {
    return MockServer.env["ir.async"].create([{ name, ...values }])[0];
}

/** No message of the bus arrives any more. */
async function cutWebsocket() {
    const { sync } = getService("async_job");
    await waitUntil(() => sync.isConnected, { timeout: 3000 });
    const restore = lockWebsocketConnect();
    MockServer.env["bus.bus"]._simulateDisconnection(WEBSOCKET_CLOSE_CODES.ABNORMAL_CLOSURE);
    await waitUntil(() => !sync.isConnected, { timeout: 3000 });
    return restore;
}

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

describe("messages", () => {
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
});

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
            expect(outcome.error?.message).toInclude(
                `{"asyncJobId":${JSON.stringify(asyncJobId)}}`
            );
            expect(getService("async_job").watchers.size).toBe(0);
        }
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

describe("blocked page", () => {
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
});

describe("toasts", () => {
    test("tell the end of a job, with what can be done", async () => {
        const toasts = mockNotifications();
        await makeAsyncJobEnv();
        const url = "/web/content/7?download=true";
        for (const [state, payload] of [
            ["succeeded", { result: ACTION }],
            ["succeeded", { result: { type: "ir.actions.act_url", url } }],
            ["succeeded", { result: NOTIFICATION }],
            ["succeeded", { result: CLOSE }],
            ["succeeded", { result: false }],
            ["succeeded", { result: 42 }],
            ["done"],
            ["failed", makeErrorPayload()],
            ["cancelled"],
        ]) {
            await changeJob(startJob("Export"), state, { payload });
            await advanceTime(300);
        }
        expect(
            toasts.map(({ title, message, type, buttons }) =>
                [title, message, type, ...buttons.map(({ name }) => name)].join(" | ")
            )
        ).toEqual([
            "Export | The result is ready. | success | Open",
            "Export | Your file is ready. | success | Download",
            "Export | The result is ready. | success | Open",
            "Export | It is done. | success",
            "Export | It is done. | success",
            "Export | It is done. | success",
            "Export | It is done. | success",
            "Export | Division by zero | danger | Show error",
            "Export | It was cancelled. | warning",
        ]);
    });

    test("close when the result is used elsewhere, or the job is run again", async () => {
        const toasts = mockNotifications();
        await makeAsyncJobEnv();
        const first = startJob("First");
        const second = startJob("Second");
        await changeJob(first, "succeeded", { payload: { result: ACTION } });
        await changeJob(second, "failed", { payload: makeErrorPayload() });
        await advanceTime(300);
        expect(toasts.map(({ isOpen }) => isOpen)).toEqual([true, true]);
        await changeJob(first, "done");
        await changeJob(second, "created");
        await advanceTime(300);
        expect(toasts.map(({ isOpen }) => isOpen)).toEqual([false, false]);
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

    test("are shown in one tab", async () => {
        const toasts = mockNotifications();
        let isHere = false;
        patchWithCleanup(ForegroundTab.prototype, {
            async isHere() {
                return isHere;
            },
        });
        await makeAsyncJobEnv();
        await changeJob(startJob("Export"), "done");
        await advanceTime(300);
        expect(toasts).toHaveLength(0);
        isHere = true;
        await changeJob(startJob("Export"), "done");
        await advanceTime(300);
        expect(toasts).toHaveLength(1);
    });

    test("one sums up 500 jobs; the page is rendered a few times", async () => {
        const toasts = mockNotifications();
        const env = await makeAsyncJobEnv();
        let renderings = 0;
        class Counter extends Component {
            static template = xml`<t t-foreach="Object.values(jobs)" t-as="job" t-key="job.id" t-esc="job.state"/>`;
            static props = {};
            setup() {
                this.jobs = useState(useService("async_job").jobs);
                onRendered(() => renderings++);
            }
        }
        await mountWithCleanup(Counter, { env });
        renderings = 0;
        for (let batch = 0; batch < 10; batch++) {
            const messages = [];
            for (let id = batch * 50 + 1; id <= batch * 50 + 50; id++) {
                for (const [i, state] of ["created", "processing", "done"].entries()) {
                    const message = { id, name: `Job ${id}`, state, revision: i + 1 };
                    messages.push(["broadcast", "ir.async", message]);
                }
            }
            MockServer.env["bus.bus"]._sendmany(messages);
        }
        const { jobs } = getService("async_job");
        await waitUntil(() => Object.keys(jobs).length === 500, { timeout: 3000 });
        await advanceTime(2000);
        expect(renderings).toBeLessThan(25);
        expect(toasts.map(({ message }) => message)).toEqual(["500 jobs have ended."]);
        const payload = makeErrorPayload();
        await sendMessage({ id: 501, name: "Late", state: "failed", revision: 3, payload });
        await advanceTime(1200);
        expect(toasts.filter(({ isOpen }) => isOpen).map(({ message }) => message)).toEqual([
            "1 of 501 jobs failed.",
        ]);
    });
});

describe("open", () => {
    async function startEnded(state, payload) {
        const jobId = startJob("Export");
        await changeJob(jobId, state, { payload });
        return jobId;
    }

    test("an action; then the job is completed", async () => {
        mockService("action", {
            doAction(action) {
                expect.step(action.views);
            },
        });
        await makeAsyncJobEnv();
        const jobId = await startEnded("succeeded", { result: ACTION });
        await getService("async_job").open(jobId);
        await nextMessages();
        expect.verifySteps([[[false, "list"]]]);
        expect(getService("async_job").jobs[jobId].state).toBe("done");
        await getService("async_job").open(jobId); // again
        expect.verifySteps([[[false, "list"]]]);
    });

    test("a file is downloaded, not opened in a window", async () => {
        patchWithCleanup(downloadFile, {
            _download: async (url) => expect.step(url),
        });
        await makeAsyncJobEnv();
        const url = "/web/content/7?download=true";
        const jobId = await startEnded("succeeded", {
            result: { type: "ir.actions.act_url", url },
        });
        await getService("async_job").open(jobId);
        await nextMessages();
        expect.verifySteps([url]);
        expect(getService("async_job").jobs[jobId].state).toBe("done");
    });

    test("only what Odoo would download is downloaded", async () => {
        mockService("action", {
            doAction({ url }) {
                expect.step(`open ${url}`);
            },
        });
        patchWithCleanup(downloadFile, {
            _download: async (url) => expect.step(`download ${url}`),
        });
        await makeAsyncJobEnv();
        const { origin } = browser.location;
        const elsewhere = "https://www.example.com";
        for (const [url, target, what] of [
            ["/web/content/7?download=true", "new", "download"],
            ["/web/image/7/x.png?size=1&download=1", undefined, "download"],
            ["web/content/7?download=true", undefined, "download /"],
            [`${origin}/web/content/7?download=true`, undefined, "download"],
            ["/web/content?id=7&download=1", undefined, "download"],
            ["/my/file", "download", "download"],
            ["/web/content/7", "new", "open"],
            ["/web/content/7?download=", "new", "open"],
            ["/web/contents?download=1", "new", "open"],
            ["/shared/file?download=1", "new", "open"],
            ["/shop?next=/web/content/7?download=1", "self", "open"],
            [`${elsewhere}/web/content/7?download=true`, undefined, "open"],
            [`${elsewhere}/file`, "download", "open"],
            ["//www.example.com/web/content/7?download=true", undefined, "open"],
            ["https://[?download=true", undefined, "open"],
            [false, "download", "open"],
        ]) {
            const result = { type: "ir.actions.act_url", url, target };
            await getService("async_job").open(await startEnded("succeeded", { result }));
            expect.verifySteps([what.endsWith("/") ? what + url : `${what} ${url}`]);
        }
    });

    test("nothing that was opened later is closed", async () => {
        mockService("action", {
            doAction(action) {
                expect.step(action);
            },
        });
        await makeAsyncJobEnv();
        const params = { message: "x" };
        for (const [result, opened] of [
            [CLOSE],
            [
                { ...NOTIFICATION, params: { ...params, next: CLOSE } },
                { ...NOTIFICATION, params: { ...params, next: false } },
            ],
            [NOTIFICATION, NOTIFICATION],
            [
                { type: "ir.actions.act_url", url: "/x", close: true },
                { type: "ir.actions.act_url", url: "/x", close: false },
            ],
            [
                { type: "ir.actions.report", close_on_report_download: true },
                { type: "ir.actions.report", close_on_report_download: false },
            ],
        ]) {
            await getService("async_job").open(await startEnded("succeeded", { result }));
            expect.verifySteps(opened ? [opened] : []);
        }
    });

    test("a download that fails can be tried again", async () => {
        patchWithCleanup(downloadFile, {
            _download: async () => {
                throw new Error("404");
            },
        });
        await makeAsyncJobEnv();
        const jobId = await startEnded("succeeded", {
            result: { type: "ir.actions.act_url", url: "/web/content/7?download=true" },
        });
        await expect(getService("async_job").open(jobId)).rejects.toThrow("404");
        expect(getService("async_job").jobs[jobId].state).toBe("succeeded");
    });

    test("a payload too large for the bus", async () => {
        mockService("action", {
            doAction(action) {
                expect.step(action.res_model);
            },
        });
        await makeAsyncJobEnv();
        const jobId = startJob("Export");
        await nextMessages();
        changeSilently(jobId, { state: "succeeded", payload: { result: ACTION } });
        await sendMessage({ id: jobId, name: "Export", state: "succeeded", revision: 2 });
        await getService("async_job").open(jobId);
        expect.verifySteps(["res.partner"]);
    });

    test("an error is shown by the standard dialog", async () => {
        expect.errors(1);
        const env = await makeAsyncJobEnv();
        await mountWithCleanup(MainComponentsContainer, { env });
        const jobId = await startEnded("failed", makeErrorPayload());
        await getService("async_job").open(jobId);
        await waitFor(".o_error_dialog");
        await contains(".o_error_dialog button:contains(technical details)").click();
        expect(".o_error_dialog .o_error_detail").toHaveText(/the server's traceback/);
        expect.verifyErrors(["Odoo Server Error"]);
        expect(getService("async_job").jobs[jobId].state).toBe("failed");
    });
});

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

describe("run", () => {
    function mockAction() {
        mockService("action", {
            doAction(action) {
                expect.step(`open ${action.res_model}`);
            },
        });
    }

    /** Call it, and follow the promise. */
    function runExport(options) {
        const outcome = { job: null, error: null };
        getService("async_job")
            .run(CALL, options)
            .then(
                (job) => (outcome.job = job),
                (error) => (outcome.error = error)
            );
        return outcome;
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

describe("blocking screen", () => {
    async function mountBlocked() {
        mockExport();
        const toasts = mockNotifications();
        const env = await makeAsyncJobEnv();
        class Page extends Component {
            static template = xml`<input class="o_test_input"/><MainComponentsContainer/>`;
            static components = { MainComponentsContainer };
            static props = {};
        }
        await mountWithCleanup(Page, { env });
        await contains(".o_test_input").edit("typed");
        const outcome = callExport({});
        await nextMessages();
        await advanceTime(500);
        await animationFrame();
        return { outcome, toasts };
    }

    test("shows what runs, with its progress", async () => {
        await mountBlocked();
        expect(".o_ir_async_block_name").toHaveText("Export");
        expect(".o_ir_async_block_state").toHaveText("Queued");
        await changeJob(1, "processing", { progress: { done: 1, total: 4, message: "1 of 4" } });
        expect(".o_ir_async_block_state").toHaveText("Running");
        expect(".o_ir_async_block .progress-bar").toHaveStyle({ width: "25%" }, { inline: true });
        expect(".o_ir_async_block [role=progressbar]").toHaveAttribute(
            "aria-label",
            "Progress of Export"
        );
        await changeJob(1, "done");
        expect(".o_ir_async_block").toHaveCount(0);
    });

    test("Continue in background, at once", async () => {
        const { outcome, toasts } = await mountBlocked();
        expect(".o_ir_async_continue").toBeFocused();
        await contains(".o_ir_async_continue").click();
        expect(".o_ir_async_block").toHaveCount(0);
        expect(getService("ui").isBlocked).toBe(false);
        await animationFrame();
        expect(".o_test_input").toBeFocused();
        expect(".o_test_input").toHaveValue("typed");
        expect(toasts.map(({ message }) => message)).toEqual([
            "You can keep working; the result will appear under Background jobs.",
        ]);
        await advanceTime(BLOCK_UI_DURATION);
        expect(toasts).toHaveLength(1);
        await changeJob(1, "done");
        expect(outcome.job.inBackground).toBe(true);
    });

    test("Escape does the same", async () => {
        await mountBlocked();
        await press("Escape");
        await animationFrame();
        expect(".o_ir_async_block").toHaveCount(0);
        expect(getService("ui").isBlocked).toBe(false);
    });

    test("two calls: one screen", async () => {
        await mountBlocked();
        callExport({});
        await nextMessages();
        await advanceTime(500);
        await animationFrame();
        expect(".o_ir_async_block").toHaveCount(1);
        expect(".o_ir_async_block_name").toHaveCount(2);
        await changeJob(1, "done");
        expect(".o_ir_async_block_name").toHaveCount(1);
        await contains(".o_ir_async_continue").click();
        expect(getService("ui").isBlocked).toBe(false);
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
        expect(outcome.error.data.message).toBe("The error of this job is not available any more.");
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

describe("news", () => {
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

describe("what toasts say", () => {
    test("of a long name, the beginning", async () => {
        const toasts = mockNotifications();
        mockExport(() => ({ asyncJobId: startJob("word ".repeat(100)) }));
        await makeAsyncJobEnv();
        callExport({});
        await nextMessages();
        await advanceTime(BLOCK_UI_DURATION);
        await changeJob(1, "failed", { payload: makeErrorPayload() });
        await advanceTime(300);
        expect(toasts).toHaveLength(2);
        for (const { title } of toasts) {
            expect(title.length).toBeLessThan(160);
            expect(title).toMatch(/^word .* word…$/);
        }
    });

    test("of a long error, the beginning", async () => {
        const toasts = mockNotifications();
        await makeAsyncJobEnv();
        const payload = makeErrorPayload("word ".repeat(400));
        await changeJob(startJob("Export"), "failed", { payload });
        await advanceTime(300);
        expect(toasts[0].message.length).toBeLessThan(160);
        expect(toasts[0].message).toMatch(/^word .* word…$/);
        expect(toasts[0].buttons.map(({ name }) => name)).toEqual(["Show error"]);
    });

    test("the summary is closed by its button, which opens just these jobs", async () => {
        const toasts = mockNotifications();
        mockService("action", {
            loadAction: async () => ({ type: "ir.actions.act_window", domain: [] }),
            doAction: ({ domain }) => expect.step(JSON.stringify(domain)),
        });
        await makeAsyncJobEnv();
        const ids = ["First", "Second", "Third", "Fourth"].map((name) => startJob(name));
        for (const id of ids) {
            await changeJob(id, id === ids[2] ? "failed" : "done", { payload: null });
        }
        await advanceTime(2000);
        const toast = toasts.at(-1);
        expect(toast.message).toBe("1 of 4 jobs failed.");
        await toast.buttons[0].onClick();
        expect.verifySteps([JSON.stringify([["id", "in", [ids[2]]]])]);
        expect(toast.isOpen).toBe(false);
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

    test("a number or a text as result", async () => {
        const env = await makeAsyncJobEnv();
        await mountWithCleanup(MainComponentsContainer, { env });
        const jobId = startJob("Export");
        await changeJob(jobId, "succeeded", { payload: { result: { answer: 42 } } });
        await getService("async_job").open(jobId);
        await waitFor(".o_ir_async_result");
        expect(".o_ir_async_result_text").toHaveText(/"answer": 42/);
        expect(".o_ir_async_result .modal-title").toHaveText("Export");
        await nextMessages();
        expect(getService("async_job").jobs[jobId].state).toBe("done");
    });
});

describe("one tab of many", () => {
    beforeEach(() => {
        restoreForegroundTab();
        after(mockForegroundTab);
    });

    test("is the one that was shown last", async () => {
        const held = mockLocks();
        const first = new ForegroundTab();
        await animationFrame();
        expect(await first.isHere()).toBe(true);
        const second = new ForegroundTab(); // opened later
        await animationFrame();
        expect(await first.isHere()).toBe(false);
        expect(await second.isHere()).toBe(true);
        held.leave(); // closed
        await animationFrame();
        expect(await first.isHere()).toBe(true);
    });

    test("is the main one, in a browser without locks", async () => {
        patchWithCleanup(browser.navigator, { locks: undefined });
        const isOnMainTab = async () => true;
        expect(await new ForegroundTab({ isOnMainTab }).isHere()).toBe(true);
    });
});

/** Locks as browsers have them, for one name. */
function mockLocks() {
    const queue = [];
    let holder = null;
    const grant = () => {
        if (!holder && queue.length) {
            holder = queue.shift();
            holder.callback();
        }
    };
    patchWithCleanup(browser.navigator, {
        locks: {
            request(name, { steal }, callback) {
                const request = Object.assign(new Deferred(), { callback });
                if (steal) {
                    holder?.reject(new DOMException("stolen", "AbortError"));
                    holder = null;
                    queue.unshift(request);
                } else {
                    queue.push(request);
                }
                grant();
                return request;
            },
        },
    });
    return {
        leave() {
            holder = null;
            grant();
        },
    };
}
