// Looks at a page as it is rendered. Every list but `facts` is of problems, and empty on a good page.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const shown = element => element.getClientRects().length > 0;
  const box = element => element.getBoundingClientRect();
  const name = element => `${element.tagName.toLowerCase()} "${element.textContent.trim().slice(0, 40)}"`;
  const report = {};

  // The page itself never scrolls sideways; only tables do, in their own frame.
  report.overflow = document.documentElement.scrollWidth > innerWidth
    ? all('body *').filter(e => box(e).right > innerWidth + 1 && !e.closest('.scroll')).map(name) : [];

  // Pictures have a size, and what is written in them stays inside the window and apart.
  const pictures = all('svg').filter(svg => !svg.closest('.scroll'));
  report.empty = all('svg').filter(svg => box(svg).width < 20 || box(svg).height < 10).map(name);
  report.outside = pictures.flatMap(svg => all('text', svg))
    .filter(text => box(text).left < 0 || box(text).right > innerWidth).map(name);
  report.overlaps = pictures.flatMap(svg => {
    const texts = all('text', svg);
    return texts.flatMap((a, i) => texts.slice(i + 1).filter(b => {
      const [p, q] = [box(a), box(b)];
      return p.left < q.right && q.left < p.right && p.top + 2 < q.bottom && q.top + 2 < p.bottom;
    }).map(b => `${name(a)} and ${name(b)}`));
  });

  // For readers who do not see the pictures, or the page.
  report.unlabelled = all('svg').filter(svg => !svg.closest('[aria-hidden=true]') &&
    !(svg.getAttribute('role') === 'img' && svg.querySelector('title') && svg.querySelector('desc'))).map(name);
  report.tables = all('table').filter(table => !table.caption || all('th', table).some(th => !th.scope) ||
    !table.closest('[role=region][tabindex="0"][aria-label]')).map(name);
  const ids = all('[id]').map(e => e.id);
  report.duplicates = ids.filter((id, i) => ids.indexOf(id) !== i);
  report.dangling = all('[aria-labelledby]').flatMap(e => e.getAttribute('aria-labelledby').split(/\s+/))
    .concat(all('a[href^="#"]').map(a => a.getAttribute('href').slice(1)))
    .filter(id => !document.getElementById(id));
  const levels = all('h1,h2,h3,h4').map(h => +h.tagName[1]);
  report.headings = levels.flatMap((level, i) => i && level > levels[i - 1] + 1 ? [`h${levels[i - 1]} then h${level}`] : []);

  // Text against what is behind it, by the formula of WCAG 2.
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgba = colour => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const over = (top, under) => [0, 1, 2].map(i => (top[i] * top[3] + under[i] * (255 - top[3])) / 255).concat(255);
  const behind = element => {
    if (!element) return rgba(matchMedia('(prefers-color-scheme: dark)').matches ? 'black' : 'white');
    const own = rgba(getComputedStyle(element).backgroundColor);
    return own[3] === 255 ? own : over(own, behind(element.parentElement));
  };
  const luminance = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const contrast = element => {
    const style = getComputedStyle(element);
    const back = behind(element);
    const ink = over(rgba(element instanceof SVGElement ? style.fill : style.color), back);
    const [light, dark] = [luminance(ink), luminance(back)].sort((a, b) => b - a);
    return (light + 0.05) / (dark + 0.05);
  };
  const written = all('body *').filter(e => shown(e) && !['TITLE', 'DESC', 'STYLE'].includes(e.tagName.toUpperCase()) &&
    [...e.childNodes].some(node => node.nodeType === Node.TEXT_NODE && node.textContent.trim()));
  report.contrast = written.filter(e => contrast(e) < 4.5).map(e => `${name(e)}: ${contrast(e).toFixed(2)}`);

  // What the tests hold against the trace.
  const rows = selector => all(`${selector} tbody tr`).map(tr => [...tr.cells].map(cell => cell.textContent.trim()));
  const middle = e => (box(e).left + box(e).right) / 2;
  report.facts = {
    scripts: document.scripts.length,
    background: behind(document.body).slice(0, 3),
    facts: all('#verdict li').map(li => `${li.querySelector('.figure').textContent} ${li.querySelector('.words').textContent}`),
    overview: rows('#overview'), window: rows('#window'), refusals: rows('#refusals'),
    findings: rows('#findings'), memory: rows('#memory'),
    warnings: all('.warning').map(e => e.textContent.trim()),
    cards: all('.card').map(card => ({
      name: card.querySelector('h3').textContent,
      bars: all('svg.distribution rect.bar', card).map(bar => [box(bar).left, box(bar).right, box(bar).height]),
      jobs: all('svg.distribution rect.bar title', card).map(title => parseInt(title.textContent, 10)),
      bound: all('svg.distribution .bound line', card).map(middle)[0] ?? null,
      deadline: all('svg.distribution .deadline line', card).map(middle)[0] ?? null,
      plot: box(card.querySelector('svg.distribution') ?? card).toJSON(),
      table: box(card.querySelector('table') ?? card).toJSON(),
    })),
    gantt: all('svg.gantt rect').map(rect => ({ kind: rect.getAttribute('class'), left: box(rect).left, right: box(rect).right })),
    ganttBox: all('svg.gantt').map(svg => box(svg).toJSON())[0] ?? null,
  };
  return report;
})()
