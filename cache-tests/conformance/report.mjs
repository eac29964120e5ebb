// What a run prints: Markdown tables for the suites, then totals and what did not pass.
import { kinds, notPassed, passedPerRun, total } from './judge.mjs'
import { asExpectation, binding } from './expectations.mjs'

export function printSuites (suites, results) {
  console.log(`\n${tableOfSuites(suites, results)}\n`)
}

/** One row for each suite and one for all of them; a cell is how many tests passed of each kind. */
export function tableOfSuites (suites, results) {
  const judged = results[0].judged
  const shape = suite => kinds.map(kind => total(judged, kind, suite).all).join('/')
  const passed = suite => results.map(r => kinds.map(kind => total(r.judged, kind, suite).pass).join('/'))
  return [
    `| suite (required/optimal/check) | ${results.map(r => r.name).join(' | ')} |`,
    `|---|${results.map(() => '---|').join('')}`,
    ...suites.map(suite => `| ${suite.id} (${shape(suite)}) | ${passed(suite).join(' | ')} |`),
    `| **all** (${shape()}) | ${passed().map(cell => `**${cell}**`).join(' | ')} |`
  ].join('\n')
}

export function printTotals ({ name, runs, judged }) {
  const figures = kinds.map(kind => {
    const counts = total(judged, kind)
    return `${kind === 'check' ? 'check yes' : `${kind} pass`} ${counts.pass}/${counts.all}`
  })
  console.log(`${name}: ${figures.join(', ')}`)
  for (const kind of kinds) {
    const { pass, all, ...others } = total(judged, kind)
    const each = runs.length > 1 ? `; passed in each run ${passedPerRun(judged, kind, runs).join(', ')}` : ''
    console.log(`  ${kind}, not passed: ${Object.entries(others).map(([outcome, n]) => `${outcome} ${n}`).join(', ') || 'none'}${each}`)
  }
}

/** Tests whose outcome differed between runs. None is dropped: such a test does not count as passed. */
export function printUnsteady ({ name, runs, judged }) {
  const unsteady = [...judged].filter(([, entry]) => entry.unsteady)
  if (runs.length < 2) return
  console.log(`\n${name}: ${unsteady.length} tests differed between ${runs.length} runs`)
  for (const [id, entry] of unsteady) console.log(`  ${id} (${entry.kind}): ${entry.each.join(', ')}`)
}

/** Tests that are to pass and did not; those not accepted in the form of the expectations file. */
export function printNotPassed ({ name, judged }, accepted) {
  for (const kind of binding) {
    const failing = notPassed(judged, kind)
    const excepted = failing.filter(([id]) => accepted?.has(id)).length
    const { pass, all } = total(judged, kind)
    console.log(`\n${name}: ${kind} tests: ${pass} passed and ${excepted} excepted with a reason, of ${all}`)
    for (const [id, entry] of failing) {
      const known = accepted?.get(id)
      if (known !== undefined) console.log(`  ${id} (${entry.outcome}), accepted: ${known}`)
      else console.log(`  ${asExpectation(id, entry.seen)}  # ${entry.suite.id}, ${entry.outcome}`)
    }
  }
}
