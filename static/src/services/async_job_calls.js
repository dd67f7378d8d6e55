// The calls of methods that start jobs, until they answer.
import { browser } from "@web/core/browser/browser";
import { isJobId } from "../core/async_job";

const MAX_SHOWN_ANSWER = 200; // characters
// A call that does not answer holds back no toasts for longer.
const MAX_CALL_DURATION = 5000;

export class AsyncJobCalls {
    constructor(orm) {
        this.setup(orm);
    }

    setup(orm) {
        this.orm = orm;
        /** Nobody knows yet which jobs these promises are about. */
        this.pending = new Set();
    }

    /**
     * @param {{ model: string, method: string, args?: any[], kwargs?: Object }} call
     * @returns {Promise<number>} the id of the job that the method has started
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

    /** Wait for the answers: a job that has just ended may be the one that a caller is about to wait for. */
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
