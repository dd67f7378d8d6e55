// Results that users open.
import { describe, expect, test, waitFor } from "@odoo/hoot";
import {
    contains,
    getService,
    mockService,
    mountWithCleanup,
    patchWithCleanup,
} from "@web/../tests/web_test_helpers";
import { browser } from "@web/core/browser/browser";
import { MainComponentsContainer } from "@web/core/main_components_container";
import { downloadFile } from "@web/core/network/download";
import {
    ACTION,
    CLOSE,
    NOTIFICATION,
    changeJob,
    changeSilently,
    defineIrAsyncModels,
    makeAsyncJobEnv,
    makeErrorPayload,
    nextMessages,
    sendMessage,
    startEnded,
    startJob,
} from "../ir_async_test_helpers";

describe.current.tags("headless");
defineIrAsyncModels();

test("an action; then the job is completed", async () => {
    mockService("action", {
        doAction(action) {
            expect.step(action.views);
        },
    });
    await makeAsyncJobEnv();
    const jobId = await startEnded("Export", "succeeded", { result: ACTION });
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
    const jobId = await startEnded("Export", "succeeded", {
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
        await getService("async_job").open(await startEnded("Export", "succeeded", { result }));
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
        await getService("async_job").open(await startEnded("Export", "succeeded", { result }));
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
    const jobId = await startEnded("Export", "succeeded", {
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
    const jobId = await startEnded("Export", "failed", makeErrorPayload());
    await getService("async_job").open(jobId);
    await waitFor(".o_error_dialog");
    await contains(".o_error_dialog button:contains(technical details)").click();
    expect(".o_error_dialog .o_error_detail").toHaveText(/the server's traceback/);
    expect.verifyErrors(["Odoo Server Error"]);
    expect(getService("async_job").jobs[jobId].state).toBe("failed");
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
