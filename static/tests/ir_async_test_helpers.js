// What tests need to use the service `async_job`, and to say what becomes of its jobs.
import { busModels, lockWebsocketConnect } from "@bus/../tests/bus_test_helpers";
import { WEBSOCKET_CLOSE_CODES } from "@bus/workers/websocket_worker";
import { ForegroundTab } from "@ir_async/core/foreground_tab";
import { POLL_DELAY } from "@ir_async/services/async_job_sync";
import { advanceTime, after, animationFrame, beforeEach, on, waitUntil } from "@odoo/hoot";
import {
    MockServer,
    defineModels,
    getService,
    makeMockEnv,
    mockService,
    onRpc,
    patchWithCleanup,
    webModels,
} from "@web/../tests/web_test_helpers";
import { rpcBus } from "@web/core/network/rpc";
import { patch } from "@web/core/utils/patch";
import { IrAsync } from "./mock_server/mock_models/ir_async";
import { IrHttp } from "./mock_server/mock_models/ir_http";

/**
 * In tests of other addons, call `defineIrAsyncModels()`, have the method under test answer
 * `{ asyncJobId: startJob("Export") }`, and say what becomes of that job with `changeJob`.
 */
export const irAsyncModels = { IrAsync, IrHttp };

/** A call of the method that `mockExport` mocks. */
export const CALL = { model: "res.partner", method: "start_export" };

// Results of jobs.
export const ACTION = {
    type: "ir.actions.act_window",
    res_model: "res.partner",
    view_mode: "list",
};
export const CLOSE = { type: "ir.actions.act_window_close" };
export const NOTIFICATION = {
    type: "ir.actions.client",
    tag: "display_notification",
    params: { message: "x" },
};

/** The requests that the mock server has not answered yet. */
const requests = new Set();

export function defineIrAsyncModels() {
    beforeEach(() => {
        requests.clear();
        after(on(rpcBus, "RPC:REQUEST", ({ detail }) => requests.add(detail.data.id)));
        after(on(rpcBus, "RPC:RESPONSE", ({ detail }) => requests.delete(detail.data.id)));
    });
    return defineModels({ ...webModels, ...busModels, ...irAsyncModels });
}

let unpatch;

/** All tests run in one page. The locks of a test would outlive it there. */
export function mockForegroundTab() {
    unpatch = patch(ForegroundTab.prototype, {
        getLocks() {},
        async isHere() {
            return true;
        },
    });
}

export function restoreForegroundTab() {
    unpatch();
}

mockForegroundTab();

/** @param {"hidden"|"visible"} state */
export function mockVisibility(state) {
    patchWithCleanup(document, { visibilityState: state });
    document.dispatchEvent(new Event("visibilitychange"));
}

/**
 * Start a job on the mock server, as if a method had called `call_notify`.
 *
 * @param {string|false} name
 * @param {Object} [values]
 * @returns {number} the id of the job
 */
export function startJob(name, values) {
    return MockServer.env["ir.async"]._call_notify(name, values);
}

/**
 * Change a job on the mock server; the bus notifies the client, which shows it in the next frame.
 *
 * @param {number} jobId
 * @param {string} state
 * @param {Object} [values] other fields: payload, progress
 */
export async function changeJob(jobId, state, values = {}) {
    MockServer.env["ir.async"]._change(jobId, { ...values, state });
    await nextMessages();
}

/**
 * Start a job that ends at once.
 *
 * @param {string|false} name
 * @param {string} state
 * @param {Object} [payload]
 * @returns {Promise<number>} the id of the job
 */
export async function startEnded(name, state, payload) {
    const jobId = startJob(name);
    await changeJob(jobId, state, { payload });
    return jobId;
}

/** Have a method of the mock server start a job. */
export function mockExport(answer = () => ({ asyncJobId: startJob("Export") })) {
    onRpc(CALL.model, CALL.method, answer);
}

/**
 * Call that method, and follow the promise.
 *
 * @param {Object} [options] of the service's method
 * @param {"asyncRpc"|"run"} [method="asyncRpc"]
 * @returns {{ job: Object|null, error: Error|null }}
 */
export function callExport(options = { blockUI: false }, method = "asyncRpc") {
    const outcome = { job: null, error: null };
    const asyncJob = getService("async_job");
    asyncJob[method](CALL, options).then(
        (job) => (outcome.job = job),
        (error) => (outcome.error = error)
    );
    return outcome;
}

/** Wait until all calls have answered, and all messages of the bus are applied and shown. */
export async function nextMessages() {
    const isReceived = () =>
        !requests.size &&
        (getService("bus_service").lastNotificationId || 0) >=
            MockServer.env["bus.bus"].lastBusNotificationId;
    await waitUntil(isReceived, { timeout: 3000 });
    await animationFrame(); // applied
    await animationFrame(); // rendered
}

/**
 * Send a message of the bus, whatever the state of the jobs on the mock server.
 *
 * @param {Object} message
 */
export async function sendMessage(message) {
    MockServer.env["bus.bus"]._sendone("broadcast", "ir.async", message);
    await nextMessages();
}

/** Cut the websocket: no message of the bus arrives any more. */
export async function cutWebsocket() {
    const { sync } = getService("async_job");
    await waitUntil(() => sync.isConnected, { timeout: 3000 });
    const restore = lockWebsocketConnect();
    MockServer.env["bus.bus"]._simulateDisconnection(WEBSOCKET_CLOSE_CODES.ABNORMAL_CLOSURE);
    await waitUntil(() => !sync.isConnected, { timeout: 3000 });
    return restore;
}

/** Wait until the jobs are polled, if there is something to wait for. */
export async function nextPoll() {
    const { sync } = getService("async_job");
    const timeout = sync.pollTimeout;
    await advanceTime(POLL_DELAY);
    await waitUntil(() => sync.pollTimeout !== timeout, { timeout: 3000 });
}

/** Start a job about which the bus says nothing. */
export function startSilently(name, values) {
    return MockServer.env["ir.async"].create([{ name, ...values }])[0];
}

/**
 * Change a job about which the bus says nothing.
 *
 * @param {number} jobId
 * @param {Object} values
 */
export function changeSilently(jobId, values) {
    const [{ revision }] = MockServer.env["ir.async"].browse(jobId);
    MockServer.env["ir.async"].write([jobId], { ...values, revision: revision + 1 });
}

/** The payload of a job that failed. */
export function makeErrorPayload(message = "Division by zero") {
    return {
        error: {
            code: 0,
            message: "Odoo Server Error",
            data: {
                name: "builtins.ZeroDivisionError",
                message,
                arguments: [message],
                context: {},
                debug: `Traceback (most recent call last):\n  the server's traceback\nZeroDivisionError: ${message}`,
            },
        },
    };
}

/** @param {Object} [options] @param {boolean} [options.ready=true] the web client is ready, so the jobs are loaded */
export async function makeAsyncJobEnv({ ready = true } = {}) {
    const env = await makeMockEnv();
    if (ready) {
        env.bus.trigger("WEB_CLIENT_READY");
        await nextMessages();
    }
    return env;
}

/** @returns {string[]} fills up with what toasts say */
export function mockNotifications() {
    const toasts = [];
    mockService("notification", {
        add(message, { title, type, buttons = [], onClose } = {}) {
            const toast = {
                message: String(message),
                title: title && String(title),
                type,
                buttons,
                isOpen: true,
            };
            toasts.push(toast);
            return () => {
                toast.isOpen = false;
                onClose?.();
            };
        },
    });
    return toasts;
}
