// The record of a job, made from a message of the bus or a row of the server.
import { pick } from "@web/core/utils/objects";
import { isLive } from "../core/async_job";

/** @typedef {import("../core/async_job").AsyncJob} AsyncJob */

/**
 * Make the record of a job from a message of the bus, or a row of `get_user_jobs`.
 *
 * @param {AsyncJob & { elapsed?: number, ended_ago?: number, scheduled_in?: number }} news
 * @param {AsyncJob} [old] the record so far
 * @returns {AsyncJob}
 */
export function makeJob(news, old) {
    const isSame = old?.revision === news.revision;
    const job = { ...pick(news, "id", "name", "state", "revision"), ...makeTimes(news, old) };
    job.progress = "progress" in news ? news.progress : (isSame && old.progress) || null;
    job.payload = "payload" in news ? news.payload : guessPayload(news, old);
    job.resultType = news.result_type ?? (isLive(job) ? undefined : old?.resultType);
    job.isStuck = news.is_stuck ?? (isSame && old.isStuck);
    return job;
}

/** @returns {AsyncJob["payload"]} undefined: unknown until it is read */
function guessPayload({ state, revision }, old) {
    if (isLive({ state }) || state === "cancelled") {
        return null;
    }
    if (!old || revision > old.revision + 1) {
        return undefined; // a message was missed
    }
    if (isLive(old)) {
        return state === "done" ? null : undefined; // `done` without a result, or too large for the bus
    }
    return old.payload;
}

/** The times that users see. A running clock must not jump back when the server reports its time again. */
function makeTimes(news, old) {
    const now = Date.now();
    if (["waiting", "created"].includes(news.state)) {
        return { scheduledAt: getScheduledAt(news, old, now) };
    }
    if (news.state === "processing") {
        const known = old?.revision === news.revision ? old.startedAt : undefined;
        return { startedAt: earliest(known, before(now, news.elapsed)) ?? now };
    }
    const wasOver = old && !isLive(old);
    const endedAt = (wasOver && old.endedAt) || before(now, news.ended_ago) || now;
    return { startedAt: earliest(old?.startedAt, before(endedAt, news.elapsed)), endedAt };
}

function getScheduledAt(news, old, now) {
    if (typeof news.scheduled_in === "number") {
        return now + news.scheduled_in * 1000;
    }
    if ("elapsed" in news) {
        return null; // a row of the server, without a date
    }
    return old?.revision === news.revision ? old.scheduledAt : undefined;
}

/** @returns {number|undefined} */
function before(time, seconds) {
    return typeof seconds === "number" ? time - Math.max(0, seconds) * 1000 : undefined;
}

/** @returns {number|undefined} */
function earliest(...times) {
    const known = times.filter((time) => time !== undefined);
    return known.length ? Math.min(...known) : undefined;
}
