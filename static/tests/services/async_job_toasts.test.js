// Toasts about jobs that have ended.
import { ForegroundTab } from "@ir_async/core/foreground_tab";
import { BLOCK_UI_DURATION } from "@ir_async/services/async_job_waits";
import { advanceTime, describe, expect, test, waitUntil } from "@odoo/hoot";
import { Component, onRendered, useState, xml } from "@odoo/owl";
import {
    MockServer,
    getService,
    mockService,
    mountWithCleanup,
    patchWithCleanup,
} from "@web/../tests/web_test_helpers";
import { useService } from "@web/core/utils/hooks";
import {
    ACTION,
    CLOSE,
    NOTIFICATION,
    callExport,
    changeJob,
    defineIrAsyncModels,
    makeAsyncJobEnv,
    makeErrorPayload,
    mockExport,
    mockNotifications,
    nextMessages,
    sendMessage,
    startJob,
} from "../ir_async_test_helpers";

describe.current.tags("headless");
defineIrAsyncModels();

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

    test("a summary takes in the toasts that are still shown", async () => {
        const toasts = mockNotifications();
        await makeAsyncJobEnv();
        const end = async (names) => {
            for (const id of names.map((name) => startJob(name))) {
                await changeJob(id, "done", { payload: null });
            }
            await advanceTime(2000);
        };
        const getOpen = () => toasts.filter(({ isOpen }) => isOpen).map(({ message }) => message);
        await end(["First", "Second"]);
        expect(getOpen()).toEqual(["It is done.", "It is done."]);
        await end(["Third", "Fourth", "Fifth", "Sixth"]);
        expect(getOpen()).toEqual(["6 jobs have ended."]);
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
