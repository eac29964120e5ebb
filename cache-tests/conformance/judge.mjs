// The suite's own judgement of its results, dependencies honoured, over one or more runs.
import path from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import fs from 'node:fs'

export const suiteRoot = path.join(path.dirname(fileURLToPath(import.meta.url)), 'node_modules/http-cache-tests')
if (!fs.existsSync(suiteRoot)) {
  console.error('conformance: the suite is not installed: run `npm ci` in cache-tests/conformance')
  process.exit(2)
}
const load = file => import(pathToFileURL(path.join(suiteRoot, file)))
const { determineTestResult } = await load('lib/display.mjs')

export const suites = (await load('tests/index.mjs')).default
export const kinds = ['required', 'optimal', 'check']
export const kindOf = test => test.kind ?? 'required'

// determineTestResult answers with a glyph; these are its outcomes in words.
// "retry" is the suite's word for a test whose request reached the origin twice.
const outcomes = {
  '✅': 'pass', Y: 'pass', '⛔️': 'fail', '⚠️': 'fail', N: 'fail', '🔹': 'setup', '⁉️': 'harness', '⚪️': 'dependency', '↻': 'retry', '-': 'untested'
}

/** Tests a cache outside a browser can take. */
export const testsOf = suite => suite.tests.filter(test => test.browser_only !== true)

/**
 * One entry per test: its outcome in every run, and the outcome that counts. A test passes when it
 * passed in every run; otherwise its first outcome that is not a pass counts.
 */
export function judge (runs) {
  const judged = new Map()
  for (const suite of suites) {
    for (const test of testsOf(suite)) {
      const each = runs.map(results => outcomes[determineTestResult(suites, test.id, results)[2]] ?? 'harness')
      const failing = each.findIndex(outcome => outcome !== 'pass')
      judged.set(test.id, {
        test,
        suite,
        kind: kindOf(test),
        each,
        outcome: failing === -1 ? 'pass' : each[failing],
        unsteady: new Set(each).size > 1,
        seen: failing === -1 ? '' : explain(test, each[failing], runs[failing])
      })
    }
  }
  return judged
}

/** The tests of a kind that did not pass, as entries of [id, what was judged]. */
export function notPassed (judged, kind) {
  return [...judged].filter(([, entry]) => entry.kind === kind && entry.outcome !== 'pass')
}

/** Counts by outcome for one kind of test, in all suites or in one. */
export function total (judged, kind, suite) {
  const counts = { pass: 0, all: 0 }
  for (const entry of judged.values()) {
    if (entry.kind !== kind || (suite !== undefined && entry.suite !== suite)) continue
    counts.all++
    counts[entry.outcome] = (counts[entry.outcome] ?? 0) + 1
  }
  return counts
}

/** How many of a kind passed in each run by itself. */
export function passedPerRun (judged, kind, runs) {
  return runs.map((_, run) => [...judged.values()].filter(entry => entry.kind === kind && entry.each[run] === 'pass').length)
}

function explain (test, outcome, results) {
  if (outcome === 'untested') return 'no result'
  if (outcome === 'dependency') {
    const missing = test.depends_on.filter(id => outcomes[determineTestResult(suites, id, results)[2]] !== 'pass')
    return `depends on ${missing.join(', ')}`
  }
  const result = results[test.id]
  return Array.isArray(result) ? result.join(': ') : String(result)
}
