// The processes of a run: the suite's origin, a cache in front of it, the suite's client.
// Every one is started here, ended by its own pid, and its files live in one temporary directory.
import { spawn } from 'node:child_process'
import fs from 'node:fs'
import net from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { suiteRoot } from './judge.mjs'

const here = path.dirname(fileURLToPath(import.meta.url))
const startMs = 20_000
const stopMs = 10_000
// Two hundred and some tests with pauses of 3 s, a hundred at a time: about a minute.
const clientMs = 300_000

const running = new Set()
const directories = new Set()

// The last resort when this process ends without stopAll, such as on an uncaught error.
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL')
  for (const directory of directories) fs.rmSync(directory, { recursive: true, force: true })
})

export async function startOrigin ({ port, verbose }) {
  const chosen = port === undefined ? await freePort() : Number(port)
  const directory = temporaryDirectory()
  const environment = { npm_config_protocol: 'http', npm_config_port: String(chosen), npm_config_pidfile: path.join(directory, 'origin.pid') }
  const child = start('origin', [process.execPath, '--no-warnings', path.join(suiteRoot, 'server/server.mjs')], { environment, directory, verbose })
  await listening(child, chosen)
  return { port: chosen, printed: () => child.printed }
}

export async function startServer (name, { origin, littoral, command, extra, verbose }) {
  const directory = temporaryDirectory()
  const port = await freePort()
  const admin = await freePort()
  const fill = file => {
    const values = { PORT: port, ORIGIN: origin, RUN: directory, USER: process.getuid?.() === 0 ? 'user root;' : '' }
    const text = fs.readFileSync(path.join(here, 'peers', file), 'utf8').replace(/@(PORT|ORIGIN|RUN|USER)@/g, (_, key) => values[key])
    const filled = path.join(directory, file)
    fs.writeFileSync(filled, text)
    return filled
  }
  // The suite has required tests of stored Set-Cookie, which a node refuses by default.
  const commands = {
    littoral: () => [littoral, 'run', '--origin', `http://127.0.0.1:${origin}`, '--listen', `127.0.0.1:${port}`, '--admin', `127.0.0.1:${admin}`, '--data', path.join(directory, 'data'), '--access-log', 'off', '--set-cookie', 'rfc9111', ...extra],
    nginx: () => ['nginx', '-p', directory, '-e', path.join(directory, 'error.log'), '-c', fill('nginx.conf'), '-g', 'daemon off;'],
    varnish: () => ['varnishd', '-F', '-j', 'none', '-n', path.join(directory, 'varnish'), '-a', `127.0.0.1:${port}`, '-f', fill('varnish.vcl'), '-s', 'malloc,64M', '-p', 'default_ttl=0', '-p', 'default_grace=0', '-p', 'default_keep=3600'],
    haproxy: () => ['haproxy', '-db', '-f', fill('haproxy.cfg')],
    command: () => command.split(/\s+/).filter(word => word !== '').map(word => word.replace(/\{(port|admin|origin)\}/g, (_, key) => String({ port, admin, origin }[key])))
  }
  if (commands[name] === undefined) throw new Error(`--server: expected littoral, nginx, varnish or haproxy, found ${name}`)
  const argv = commands[name]()
  console.error(`conformance: ${argv.join(' ')}`)
  const child = start(name, argv, { directory, verbose })
  await listening(child, port)
  if (name === 'littoral') await ready(child, admin)
  return { base: `http://127.0.0.1:${port}` }
}

/** The whole suite; what its command line client printed, as an object from test id to result. */
export async function runClient (base) {
  const child = await client(base, '')
  const begin = child.printed.indexOf('{')
  try {
    return JSON.parse(child.printed.slice(begin))
  } catch {
    throw new Error(`the suite's client did not print its results:\n${tail(child)}`)
  }
}

/** One test, with every request and response as client and origin saw it. */
export async function runOne (base, id, origin) {
  const child = await client(base, id)
  console.log(`${child.printed}\n---- the origin\n${origin.printed()}`)
}

async function client (base, id) {
  // The client reads its parameters the way npm would pass them; an empty id means every test.
  const environment = { npm_config_base: base, npm_config_id: id, npm_package_config_base: base, npm_package_config_id: id }
  const child = start('client', [process.execPath, '--no-warnings', path.join(suiteRoot, 'cli.mjs')], { environment, directory: suiteRoot })
  const timer = setTimeout(() => child.kill('SIGKILL'), clientMs)
  const code = await child.ended
  clearTimeout(timer)
  if (code !== 0) throw new Error(`the suite's client ended with ${code}:\n${tail(child)}`)
  return child
}

export async function stopAll () {
  await Promise.all([...running].map(async child => {
    child.kill('SIGTERM')
    const timer = setTimeout(() => child.kill('SIGKILL'), stopMs)
    await child.ended
    clearTimeout(timer)
  }))
  for (const directory of directories) fs.rmSync(directory, { recursive: true, force: true })
  directories.clear()
}

function start (name, argv, { environment = {}, directory, verbose = false }) {
  const child = spawn(argv[0], argv.slice(1), { cwd: directory, env: { ...process.env, ...environment }, stdio: ['ignore', 'pipe', 'pipe'] })
  child.name = name
  child.printed = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8')
    stream.on('data', text => {
      child.printed += text
      if (verbose) process.stderr.write(text)
    })
  }
  running.add(child)
  child.ended = new Promise(resolve => {
    child.on('error', error => {
      child.printed += error.message
      running.delete(child)
      resolve(error.code)
    })
    child.on('close', (code, signal) => {
      running.delete(child)
      resolve(code ?? signal)
    })
  })
  return child
}

async function listening (child, port) {
  await until(child, `listen on ${port}`, () => new Promise(resolve => {
    const socket = net.connect(port, '127.0.0.1')
    socket.on('connect', () => { socket.destroy(); resolve(true) })
    socket.on('error', () => resolve(false))
  }))
}

async function ready (child, admin) {
  await until(child, 'answer 200 on /readyz', () => fetch(`http://127.0.0.1:${admin}/readyz`).then(response => response.status === 200, () => false))
}

async function until (child, what, probe) {
  const deadline = Date.now() + startMs
  while (Date.now() < deadline) {
    if (!running.has(child)) throw new Error(`${child.name} ended before it could ${what}:\n${tail(child)}`)
    if (await probe()) return
    await new Promise(resolve => setTimeout(resolve, 50))
  }
  throw new Error(`${child.name} did not ${what} within ${startMs / 1000} s:\n${tail(child)}`)
}

const tail = child => child.printed.slice(-3000).trim()

function temporaryDirectory () {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'littoral-conformance-'))
  directories.add(directory)
  return directory
}

function freePort () {
  return new Promise((resolve, reject) => {
    const server = net.createServer()
    server.on('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address()
      server.close(() => resolve(port))
    })
  })
}
