// The open calls of methods that start jobs.
import { browser } from "@web/core/browser/browser";
import { isJobId } from "../core/async_job";

const MAX_SHOWN_ANSWER = 200; // characters
// A call holds back toasts until it answers, but no longer than this.
const MAX_CALL_DURATION = 5000;

export class AsyncJobCalls {
    constructor(orm) {
        this.setup(orm);
    }

    setup(orm) {
        this.orm = orm;
        /** The promises of calls that have not answered yet, so the ids of their jobs are unknown. */
        this.pending = new Set();
    }

    /**
     * @param {{ model: string, method: string, args?: any[], kwargs?: Object }} call
     * @returns {Promise<number>} the id of the started job
     */
    async start({ model, method, args = [], kwargs = {} }) {
        const call = this.orm.call(model, method, args, kwargs);
        this.pending.add(call);
        try {
            const answer = await call;
            if (!isJobId(answer?.asyncJobId)) {
                const text = String(JSON.stringify(answer)).slice(0, MAX_SHOWN_ANSWER);
                throw new Error(
                    `${model}.${method}() must answer { asyncJobId: <id of the job> } to be waited for, not ${text}`
                );
            }
            return answer.asyncJobId;
        } finally {
            this.pending.delete(call);
        }
    }

    /** Wait for the answers: one may name a job that has just ended, and its caller will wait for that job. */
    async whenAnswered() {
        const calls = [...this.pending];
        if (calls.length) {
            let timeout;
            const isLate = new Promise((resolve) => {
                timeout = browser.setTimeout(resolve, MAX_CALL_DURATION);
            });
            await Promise.race([Promise.allSettled(calls), isLate]);
            browser.clearTimeout(timeout);
        }
    }
}
