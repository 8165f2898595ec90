/*
 * A bank behind docs/http-bank.md, as the injected response of a mountebank imposter. It accepts all
 * orders. An authorization with "by_amount": true it decides by amount (1 Declined, 2 InsufficientFunds, 24 Pending and
 * Accepted on the next ask or resend). It keeps operations by reference in the imposter's state, and answers a repeat
 * with the first answer. It lists them (--set list=yes).
 *
 * By hand:
 *     examples/bank/run
 *
 * It takes evidence and acceptance of disputes, once per Idempotency-Key.
 *
 * What the contract does not have: POST /_bank/faults {"rules": […]} takes the rules of sandbox/faults.py as far as
 * an imposter can keep them, and GET /_bank/operations lists what came. POST /_bank/disputes takes a dispute as its
 * notice has it (a part of it for a reference that it knows), and sends the notice to the address that was given with
 * POST /_bank/notices {"url", "secret"}: these are its only notices. Its state lives in memory alone and holds what it
 * was sent, card numbers too, so it is a bank for tests.
 */
function bank (config) {
    const HOLD_MS = 20000;
    const PAGE_MAX = 100;
    const PATHS = {
        '/v1/authorizations': { kind: 'authorization', fields: ['amount', 'currency', 'capture', 'card'] },
        '/v1/captures': { kind: 'capture', parent: 'authorization', fields: ['authorization', 'amount', 'currency'] },
        '/v1/voids': { kind: 'void', parent: 'authorization', fields: ['authorization'] },
        '/v1/refunds': { kind: 'refund', parent: 'payment', fields: ['payment', 'amount', 'currency'] },
        '/v1/payouts': { kind: 'payout', fields: ['amount', 'currency', 'recipient'] }
    };
    const BY_AMOUNT = { 1: 'Declined', 2: 'InsufficientFunds', 24: 'Pending' };
    const ANSWERS = { decline: 'Declined', no_funds: 'InsufficientFunds', pend: 'Pending' };
    const OPERATIONS = { authorization: 'authorize' };
    const REPLY = /^\/v1\/disputes\/([^/]+)\/(evidence|accept)$/;

    const request = config.request;
    const state = config.state;
    state.operations = state.operations || {};
    state.rules = state.rules || [];
    state.disputes = state.disputes || {};
    state.replies = state.replies || {};

    const call = request.method === 'POST' ? PATHS[request.path] : undefined;
    const body = request.method === 'POST' ? parsed(request.body) : undefined;
    if (request.path === '/_bank/faults') {
        state.rules = body.rules || [];
        return answer(200, { rules: state.rules });
    }
    if (request.path === '/_bank/operations') {
        return answer(200, { operations: Object.values(state.operations).map(shown) });
    }
    if (request.path === '/_bank/notices') {
        state.notices = body;
        return answer(200, {});
    }
    if (request.path === '/_bank/disputes') {
        return request.method === 'GET' ? answer(200, { disputes: state.disputes, replies: state.replies }) : told();
    }
    const reply = request.method === 'POST' && REPLY.exec(request.path);
    const operation = call ? OPERATIONS[call.kind] || call.kind : reply ? 'dispute' : 'look_up';
    const rule = struck(operation, body && body.amount);
    const chosen = rule && ANSWERS[rule.fault];
    if (!rule || chosen) {
        return handle();
    }
    switch (rule.fault) {
    case 'slow':
        return later(handle(), rule.ms);
    case 'lose_request':
        return later({ fault: 'CONNECTION_RESET_BY_PEER' }, HOLD_MS);
    case 'lose_answer':
        handle();
        return later({ fault: 'CONNECTION_RESET_BY_PEER' }, HOLD_MS);
    case 'reset_before':
        return { fault: 'CONNECTION_RESET_BY_PEER' };
    case 'reset_after':
        handle();
        return { fault: 'CONNECTION_RESET_BY_PEER' };
    case 'half_body': {
        const whole = handle();
        return Object.assign({}, whole, { body: whole.body.slice(0, whole.body.length / 2) });
    }
    case 'error_before':
        return answer(rule.status || 503, { message: 'simulated' });
    case 'error_after':
        handle();
        return answer(rule.status || 503, { message: 'simulated' });
    case 'throttle': {
        const throttled = answer(429, { message: 'simulated' });
        throttled.headers['Retry-After'] = String(Math.ceil((rule.ms || 0) / 1000));
        return throttled;
    }
    default:
        return answer(500, { message: `an imposter has no fault ${rule.fault}` });
    }

    function list () {
        const all = Object.values(state.operations);
        const after = request.query.after;
        const begin = after === undefined ? 0 : all.findIndex(operation => operation.reference === after) + 1;
        if (after !== undefined && begin === 0) {
            return answer(404, { message: 'after is not the reference of an operation' });
        }
        const found = all.slice(begin).filter(operation => operation.at >= Number(request.query.since));
        return answer(200, { operations: found.slice(0, PAGE_MAX).map(shown), has_more: found.length > PAGE_MAX });
    }

    function handle () {
        if (request.method === 'GET' && request.path === '/v1/operations') {
            return list();
        }
        if (request.method === 'GET') {
            const found = state.operations[request.path.replace('/v1/operations/', '')];
            return found ? answer(200, shown(settled(found))) : answer(404, { message: 'no such operation' });
        }
        if (reply) {
            return replied(decodeURIComponent(reply[1]), reply[2]);
        }
        if (!call) {
            return answer(404, { message: 'no such call' });
        }
        const wrong = problem();
        if (wrong) {
            return answer(wrong.startsWith('missing') ? 400 : 422, { message: wrong });
        }
        const contents = JSON.stringify([call.kind, call.fields.map(field => body[field]), body.by_amount]);
        const known = state.operations[body.reference];
        if (known) {
            if (known.contents !== contents) {
                return answer(409, { message: 'this reference was used with other contents' });
            }
            return answer(200, shown(settled(known)));
        }
        const decided = decide(contents);
        state.operations[body.reference] = decided;
        return answer(200, shown(decided));
    }

    function told () {
        const known = state.disputes[body.reference];
        const parent = state.operations[body.parent || (known && known.parent)];
        if (!parent || parent.kind !== 'authorization') {
            return answer(404, { message: 'no such authorization' });
        }
        const opened = { dispute: 'chargeback', status: 'Opened', reason: 'general', amount: parent.amount,
            currency: parent.currency };
        const dispute = Object.assign({ kind: 'dispute' }, known || opened, body);
        state.disputes[dispute.reference] = dispute;
        return noticed(dispute);
    }

    function replied (reference, kind) {
        const dispute = state.disputes[reference];
        const key = header('idempotency-key');
        const contents = JSON.stringify([kind, body]);
        if (!dispute || !key || !body || body.reference !== reference) {
            return answer(dispute ? 400 : 404, { message: dispute ? 'missing: the key or reference' : 'no such dispute' });
        }
        const before = state.replies[key];
        if (before) {
            return before === contents ? answer(200, dispute) : answer(409, { message: 'this key had other contents' });
        }
        if (dispute.status !== 'Opened') {
            return answer(422, { message: `the dispute has ended: ${dispute.status}` });
        }
        state.replies[key] = contents;
        if (kind === 'accept') {
            dispute.status = 'Accepted';
        }
        return answer(200, dispute);
    }

    // The answer to whoever told of the dispute says what the receiver of the notice answered.
    function noticed (dispute) {
        if (!state.notices) {
            return answer(200, dispute);
        }
        const content = JSON.stringify(Object.assign({ created: Math.floor(Date.now() / 1000) }, dispute));
        const signed = require('crypto').createHmac('sha256', state.notices.secret).update(content).digest('hex');
        const headers = { 'Content-Type': 'application/json', 'X-Bank-Signature': signed };
        const sending = require('http').request(state.notices.url, { method: 'POST', headers }, heard => {
            heard.resume();
            config.callback(answer(200, Object.assign({}, dispute, { notice: heard.statusCode })));
        });
        sending.on('error', error => config.callback(answer(502, { message: error.message })));
        sending.end(content);
        return undefined;
    }

    function problem () {
        if (body === undefined || typeof body.reference !== 'string' || body.reference.length > 35) {
            return 'missing: a reference of at most 35 characters';
        }
        const key = header('idempotency-key');
        if (key !== body.reference) {
            return 'the header Idempotency-Key is not the reference';
        }
        const missing = call.fields.find(field => body[field] === undefined);
        if (missing) {
            return `missing: ${missing}`;
        }
        if (call.kind !== 'void' && !(Number.isInteger(body.amount) && body.amount > 0)) {
            return 'amount is not a positive integer';
        }
        return undefined;
    }

    function decide (contents) {
        const parent = call.parent && state.operations[body[call.parent]];
        const decided = {
            reference: body.reference,
            kind: call.kind,
            status: 'Accepted',
            amount: call.kind === 'void' ? (parent ? parent.amount : 0) : body.amount,
            currency: call.kind === 'void' ? (parent ? parent.currency : 'xxx') : body.currency,
            bank_id: `imposter-${body.reference}`,
            at: Math.floor(Date.now() / 1000),
            contents
        };
        if (call.kind === 'authorization') {
            decided.captures = body.capture === true;
            decided.saw_cvc = body.card.cvc !== undefined;
        }
        if (call.kind === 'payout' && body.recipient.value === 'no_account@example.com') {
            return refuse(decided, 'Declined', 'no_account');
        }
        if (call.parent) {
            decided.parent = body[call.parent];
            const refusal = against(parent);
            if (refusal) {
                return refuse(decided, 'Declined', refusal);
            }
        }
        switch (chosen || (body.by_amount === true && BY_AMOUNT[decided.amount])) {
        case 'Declined':
            return refuse(decided, 'Declined', 'generic_decline');
        case 'InsufficientFunds':
            return refuse(decided, 'InsufficientFunds', 'insufficient_funds');
        case 'Pending':
            decided.status = 'Pending';
            return decided;
        default:
            return decided;
        }
    }

    function against (parent) {
        if (!parent || parent.kind !== 'authorization' || parent.status !== 'Accepted') {
            return 'not_an_authorization';
        }
        const children = Object.values(state.operations).filter(
            child => child.parent === parent.reference && (child.status === 'Accepted' || child.status === 'Pending'));
        const sum = kind => children.filter(child => child.kind === kind).reduce((total, child) => total + child.amount, 0);
        const captured = parent.captures ? parent.amount : sum('capture');
        if (children.some(child => child.kind === 'void')) {
            return 'authorization_voided';
        }
        if (call.kind === 'capture' && captured + body.amount > parent.amount) {
            return 'capture_exceeds_authorization';
        }
        if (call.kind === 'void' && captured > 0) {
            return 'authorization_captured';
        }
        if (call.kind === 'refund' && sum('refund') + body.amount > captured) {
            return 'refund_exceeds_capture';
        }
        return undefined;
    }

    function refuse (decided, status, code) {
        decided.status = status;
        decided.decline_code = code;
        return decided;
    }

    function settled (found) {
        if (found.status === 'Pending') {
            found.status = 'Accepted';
            found.at = Math.floor(Date.now() / 1000);
        }
        return found;
    }

    function shown (found) {
        const copy = Object.assign({}, found);
        delete copy.contents;
        delete copy.captures;
        delete copy.at;
        return copy;
    }

    function struck (name, amount) {
        const found = state.rules.find(rule =>
            (rule.operation === name || (rule.operation === undefined && name !== 'look_up')) &&
            (rule.amount === undefined || rule.amount === amount) &&
            (rule.times === undefined || rule.times > 0));
        if (found && found.times !== undefined) {
            found.times -= 1;
        }
        return found;
    }

    function parsed (text) {
        try {
            const value = JSON.parse(text);
            return value !== null && typeof value === 'object' && !Array.isArray(value) ? value : undefined;
        }
        catch (error) {
            return undefined;
        }
    }

    function header (name) {
        const found = Object.keys(request.headers).find(key => key.toLowerCase() === name);
        return found && request.headers[found];
    }

    function answer (status, document) {
        return { statusCode: status, headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(document) };
    }

    function later (response, ms) {
        setTimeout(() => config.callback(response), ms);
        return undefined;
    }
}
